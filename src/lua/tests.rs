//! Scripts run in-process: what works, and what errors say.

mod gradients;
mod lab;
mod rooms;

use std::path::Path;

use super::catalogue::{Catalogue, Entry, Param};
use super::error::ScriptError;
use super::host::{Host, HostOptions};
use super::types::Type;
use super::{catalogue, docs, stubs};

fn run_with(code: &str, args: &[&str]) -> Result<(), ScriptError> {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let runs = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let runs_dir = runs.path().to_owned();
    let options = HostOptions { args, quiet: true, runs_dir, ..HostOptions::default() };
    let source = format!("local lft = require('lft') {code}");
    let host =
        Host::new(&options, Path::new("script.lua"), &source).map_err(|error| ScriptError::new(&error))?;
    host.run().map_err(|error| match error.downcast() {
        Ok(error) => error,
        Err(other) => panic!("{other}"),
    })
}

/// Runs a script that asserts by itself.
fn run(code: &str) {
    if let Err(error) = run_with(code, &[]) {
        panic!("{error}\n{code}");
    }
}

/// The message that a script ends with.
fn message(code: &str) -> String {
    match run_with(code, &[]) {
        Ok(()) => panic!("no error from {code}"),
        Err(error) => error.message,
    }
}

fn whole() -> std::sync::Arc<Catalogue> {
    catalogue().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_entry_is_described_and_its_example_runs() {
    for entry in &whole().entries {
        let Entry { name, about, params, returns, example } = entry;
        assert!(about.len() > 3 && about.ends_with('.'), "{name} lacks a description");
        assert!(!returns.is_empty(), "{name} does not say what it returns");
        assert!(params.iter().all(|param| !param.1.is_empty() && !param.2.is_empty()), "{name}: a parameter");
        assert!(!example.is_empty(), "{name} has no example");
        if let Err(error) = run_with(example, &[]) {
            panic!("the example of {name} fails: {error}\n{example}");
        }
    }
}

#[test]
fn every_type_named_is_described() {
    let catalogue = whole();
    let known = |class: &str| {
        catalogue.classes.iter().any(|known| known.name == class)
            || catalogue.options.iter().any(|known| known.class == class)
    };
    fn classes(kind: &Type) -> Vec<&'static str> {
        match kind {
            Type::Class(name) => vec![name],
            Type::Array(item) => classes(item),
            Type::Union(kinds) => kinds.iter().flat_map(classes).collect(),
            _ => Vec::new(),
        }
    }
    let fields = catalogue.options.iter().flat_map(|table| table.fields);
    let params = catalogue.entries.iter().flat_map(|entry| entry.params).chain(fields).map(|param| param.1);
    let returns = catalogue.entries.iter().flat_map(|entry| entry.returns).map(|result| result.0);
    for text in params.chain(returns) {
        assert!(!text.ends_with("Options") || text.contains('|') || known(text), "{text} is not described");
        for class in classes(&Type::parse(text)) {
            assert!(known(class), "{class} is not described");
        }
    }
    for entry in &catalogue.entries {
        let owner = entry.owner();
        assert!(
            known(owner) || catalogue.modules.iter().any(|module| module.name == owner),
            "{owner} is not described"
        );
    }
}

/// Whoever adds a function that is given a path tries to leave the sandbox by it.
#[test]
fn every_function_with_a_path_is_tried_in_the_sandbox() {
    let tried = include_str!("../../tests/sandbox.rs");
    let names_file = |param: &Param| {
        let words = ["path", "paths", "folder", "folders", "file", "files", "output", "dir", "template"];
        words.contains(&param.0.trim_end_matches('?'))
    };
    let catalogue = whole();
    for entry in &catalogue.entries {
        let options = |param: &&Param| catalogue.options.iter().find(|table| table.class == param.1);
        let fields = entry.params.iter().filter_map(|param| options(&param)).flat_map(|table| table.fields);
        if entry.params.iter().chain(fields).any(names_file) {
            let call = entry.name.strip_prefix("lft.").unwrap_or(entry.short());
            let found = ["(", "{", ","].iter().any(|mark| tried.contains(&format!("{call}{mark}")));
            assert!(found, "tests/sandbox.rs does not try {}", entry.name);
        }
    }
}

#[test]
fn stubs_and_reference_hold_every_entry() {
    let catalogue = whole();
    let (stubs, reference) = (stubs::luacats(&catalogue), docs::markdown(&catalogue));
    for entry in &catalogue.entries {
        assert!(reference.contains(&format!("### {}\n", entry.name)), "{}", entry.name);
        if !entry.name.contains(".__") {
            assert!(stubs.contains(&format!("function {}(", entry.name)), "{}", entry.name);
        }
    }
    assert!(stubs.contains("---@operator add(Tensor|number): Tensor"));
    run_with(&format!("local check = [==[{stubs}]==] assert(load(check))"), &[])
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn errors_name_the_callers_line() {
    assert_eq!(
        message("\n\nlft.zeros({2}, {dtpye = 'f32'})"),
        "script.lua:3: lft.zeros: unknown option 'dtpye' (did you mean 'dtype'?)"
    );
    assert_eq!(
        message("\nlocal function f() local t = lft.zeros({2}, {dtype = 'f23'}) end\nlocal x = f()"),
        "script.lua:2: lft.zeros: option 'dtype': expected \"f32\"|\"f64\"|\"f16\"|\"bf16\"|\"u8\"|\"u32\"|\"i64\", \
         found string \"f23\" (did you mean \"f32\"?)"
    );
    assert_eq!(
        message("\nlft.randn({2}, {seed = 'x'})"),
        "script.lua:2: lft.randn: option 'seed': expected integer, found string \"x\""
    );
    assert_eq!(
        message("lft.ones({2}):matmul(lft.ones({3}))"),
        "script.lua:1: Tensor:matmul: [2] by [3]: the last dimension of the left, 2, must equal the rows of the right, 3"
    );
    assert_eq!(
        message("local t = lft.ones({2})\nt.sum()"),
        "script.lua:2: Tensor:sum: is a method of Tensor, called on nil; write object:sum(…) with a colon"
    );
    assert_eq!(
        message("lft.zeros()"),
        "script.lua:1: lft.zeros: argument 1 (shape) is missing: expected integer|integer[]"
    );
    assert_eq!(
        message("lft.zeros(2, 3)"),
        "script.lua:1: lft.zeros: argument 2 (options): expected TensorOptions, found integer 3"
    );
    assert_eq!(message("lft.seed(1, 2)"), "script.lua:1: lft.seed: takes 1 arguments, got 2");
    assert!(
        message("return lft.ones({2}) + {}")
            .starts_with("script.lua:1: Tensor.__add: expected Tensor or number")
    );
    assert!(message("return lft.ones({2}).smu").ends_with("no method 'smu' (did you mean 'sum'?)"));
    assert!(message("return lft.ones({2}) + lft.ones({3})").ends_with("shapes [2] and [3] do not broadcast"));
    assert!(message("lft.zeros({1 << 40, 1 << 40})").contains("larger than any memory"));
    assert!(message("lft.zeros({1 << 40})").contains("this machine has"));
    assert!(
        message("local x = lft.ones({1 << 20, 1}) * lft.ones({1, 1 << 20})").contains("this machine has")
    );
}

#[test]
fn pcall_finds_strings_and_lua_errors_pass_unchanged() {
    run("local ok, err = pcall(lft.zeros, 'x')
         assert(not ok and type(err) == 'string' and err:match('^script.lua:1: lft.zeros'), err)
         local ok, err = pcall(lft.no_grad, function() error({code = 7}) end)
         assert(not ok)
         local ok, err = pcall(lft.no_grad, function() error('mine') end)
         assert(not ok and err:match('mine'), err)
         local _, err = xpcall(lft.ones, function(e) return 'handled ' .. e end, {-1})
         assert(err:match('^handled script.lua'), err)
         local co = coroutine.create(function() lft.ones({-1}) end)
         local ok, err = coroutine.resume(co)
         assert(not ok and type(err) == 'string')
         assert(select('#', pcall(function() return 1, nil, 3, nil end)) == 5)");
}

#[test]
fn tracebacks_hold_the_script_and_nothing_else() {
    let error = match run_with("\nlocal function inner() lft.zeros('x') end\ninner()", &[]) {
        Ok(()) => panic!("no error"),
        Err(error) => error,
    };
    assert!(
        error.traceback.contains("script.lua:2:") && error.traceback.contains("script.lua:3:"),
        "{error}"
    );
    assert!(!error.to_string().contains(".rs") && !error.to_string().contains("runtime error"), "{error}");
    let syntax = message("\nlocal = 5");
    assert_eq!(syntax, "script.lua:2: <name> expected near '='");
}

#[test]
fn flags_are_typed_and_recorded() {
    let code = "local o = lft.options{steps = {300, 'training steps'}, lr = {1e-3, 'rate'}, fast = {false, 'less'}, k = {{1, 2}, 'steps'}, name = 'x'}";
    let check = |more: &str, args: &[&str]| run_with(&format!("{code} {more}"), args);
    assert!(check("assert(o.steps == 300 and o.k[2] == 2 and o.name == 'x')", &[]).is_ok());
    let args = ["--steps", "5", "--lr=0.5", "--fast", "--k", "3,4,5", "corpus"];
    let test = "assert(o.steps == 5 and o.lr == 0.5 and o.fast and o.k[3] == 5 and o[1] == 'corpus' and arg[1] == '--steps')";
    if let Err(error) = check(test, &args) {
        panic!("{error}");
    }
    assert!(check("error('not reached')", &["--help"]).is_ok());
    let refused = |args: &[&str]| check("", args).err().map(|error| error.message).unwrap_or_default();
    assert_eq!(
        refused(&["--stpes", "5"]),
        "script.lua:1: lft.options: unknown flag --stpes (did you mean --steps?)"
    );
    assert_eq!(
        refused(&["--steps", "many"]),
        "script.lua:1: lft.options: flag --steps 'many': expected a whole number"
    );
    assert_eq!(refused(&["--steps"]), "script.lua:1: lft.options: flag --steps needs a value");
}

#[test]
fn tensors_compute() {
    run("local t = lft.tensor({{1, 2, 3}, {4, 5, 6}})
         assert(t:shape()[1] == 2 and #t == 2 and t[2][-1]:item() == 6)
         assert((t + lft.tensor({10, 20, 30}))[2][3]:item() == 36)
         assert((1 / t)[1][2]:item() == 0.5 and (2 ^ t)[2][1]:item() == 16 and (t ^ 2)[2][3]:item() == 36)
         assert(t:sum():item() == 21 and t:sum(1):totable()[3] == 9 and t:mean({1, 2}):item() == 3.5)
         assert(t:max(2, true):shape()[2] == 1 and t:argmax(2)[1]:item() == 3)
         assert(t:transpose(1, 2):matmul(t):shape()[1] == 3)
         assert(lft.ones({2, 3, 4}):matmul(lft.ones({4})):shape()[2] == 3 and lft.ones({4}):matmul(lft.ones({4})):item() == 4)
         assert(lft.ones({4}):matmul(lft.ones({5, 4, 3})):shape()[1] == 5)
         local big = lft.ones({1000}):cumsum(1)
         assert(big[1000]:item() == 1000 and big[257]:item() == 257 and big[256]:item() == 256)
         local sorted, order = lft.tensor({{3, 1, 2}, {9, 8, 7}}):sort(2, true)
         assert(sorted[1][1]:item() == 3 and order[2][3]:item() == 3)
         assert(t:index_select(2, {-1, 1})[1][1]:item() == 3)
         assert(t[{':', {2, 3}}]:sum():item() == 16 and t[{2, {-2, -1}}]:sum():item() == 11)
         assert(t:gather(2, lft.tensor({{3}, {1}}))[1][1]:item() == 3)
         assert(t:clamp(2, 5):sum():item() == 21 and t:norm():item() > 9.53 and t:var():item() == 3.5)
         assert(lft.arange(5):narrow(1, -2, 2)[1]:item() == 3)");
}

#[test]
fn element_types_promote_as_in_pytorch() {
    run("local ids = lft.tensor({0, 5}, {dtype = 'u32'})
         assert((ids + 1):dtype() == 'u32' and (ids * 0.5):dtype() == 'f32' and (ids / 2):dtype() == 'f32')
         assert((ids - 5)[2]:item() == 0 and (-ids)[2]:item() == -5 and (3 - ids)[1]:item() == 3)
         assert(math.type(ids[2]:item()) == 'integer' and math.type(lft.ones({1}):item()) == 'float')
         assert((ids + lft.ones({2}, {dtype = 'bf16'})):dtype() == 'bf16')
         assert(lft.ones({300}, {dtype = 'u8'}):sum():item() == 300)
         assert(lft.ones({2}):gt(0):dtype() == 'u8' and lft.tensor({2, 3}, {dtype = 'u32'}):lt(-1):sum():item() == 0)
         assert(not pcall(lft.tensor, {-1}, {dtype = 'u32'}) and not pcall(lft.tensor, {{1}, {2, 3}}))");
}

#[test]
fn random_numbers_follow_the_seed() {
    run("local a, b = lft.randn({1001}, {seed = 3}), lft.randn({1001}, {seed = 3})
         assert(a:allclose(b, {rtol = 0, atol = 0}) and not a:allclose(lft.randn({1001}, {seed = 4})))
         assert(math.abs(a:mean():item()) < 0.15 and math.abs(a:std():item() - 1) < 0.1)
         assert(not lft.rand({9}):allclose(lft.rand({9})))");
}

#[test]
fn gradients_reach_variables_through_softmax_and_norm() {
    run("local x = lft.var(lft.randn({3, 5}, {seed = 1}))
         local w = lft.var(lft.randn({5, 5}, {seed = 2}))
         local function loss(x, w)
           local y = x:layer_norm():matmul(w):softmax(-1):log():gather(2, lft.tensor({{1}, {2}, {3}}))
           return (y:mean() + x:cumsum(1):tanh():sum(1):logsumexp() + lft.where(x:gt(0), x * x, x:gelu()):mean()
                   + x:sort(2):index_select(2, {1, 3}):silu():sum() + x:sigmoid():std()):sum()
         end
         local grads = loss(x, w):backward()
         local eps = 1e-2
         for _, case in ipairs{{x, 1}, {w, 2}} do
           local v, which = case[1], case[2]
           local g = grads[v]
           for i = 1, 3 do for j = 1, 5 do
             local bump = lft.zeros({v:size(1), 5}):totable()
             bump[i][j] = eps
             local d = lft.tensor(bump)
             local up = which == 1 and loss(x + d, w) or loss(x, w + d)
             local down = which == 1 and loss(x - d, w) or loss(x, w - d)
             local numeric = (up:item() - down:item()) / (2 * eps)
             assert(math.abs(numeric - g[i][j]:item()) < 2e-2 * (1 + math.abs(numeric)), numeric .. ' ' .. g[i][j]:item())
           end end
         end
         local untouched = lft.var(lft.ones({1}))
         assert(grads[untouched] == nil)
         x:set(x - 0.1 * grads[x])");
}

#[test]
fn tensors_are_freed_and_files_are_whole() {
    run("do local t <close> = lft.zeros({10}) end
         local t = lft.zeros({2}); t:free()
         local ok, err = pcall(function() return t + 1 end)
         assert(not ok and err:match('freed'), err)
         for _ = 1, 40 do local big = lft.zeros({4096, 4096}) end
         local path = os.tmpname()
         local file = io.open(path, 'w'); file:write('not a file of tensors'); file:close()
         local ok, err = pcall(lft.safetensors.load, path)
         assert(not ok and err:match('not a whole safetensors file'), err)
         os.remove(path)
         local ok, err = pcall(lft.safetensors.load, path)
         assert(not ok and err:match('there is no file'), err)");
}

#[test]
fn requires_find_modules_beside_the_script_and_shebangs_are_skipped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("lua"))?;
    std::fs::write(folder.path().join("beside.lua"), "return 5")?;
    std::fs::write(folder.path().join("lua/below.lua"), "return 6")?;
    let script = folder.path().join("main.lua");
    std::fs::write(
        &script,
        "#!/usr/bin/env -S lft run\nassert(require('beside') + require('below') == 11)\nerror('end')",
    )?;
    let error = super::run_script(&script, &HostOptions::default()).err().map(|error| error.to_string());
    assert!(error.is_some_and(|text| text.contains("main.lua:3: end")));
    assert!(super::run_script(&folder.path().join("none.lua"), &HostOptions::default()).is_err());
    Ok(())
}

#[test]
fn help_explains_names_and_objects() {
    run("assert(lft.help('lft.zeros'):find('TensorOptions') and lft.help(lft.zeros):find('A tensor of zeros'))
         assert(lft.help(lft.ones({1})):find('Tensor:matmul') and lft.help():find('lft.safetensors'))
         local ok, err = pcall(lft.help, 'lft.zeors')
         assert(not ok and err:match('did you mean .lft.zeros.'), err)");
}
