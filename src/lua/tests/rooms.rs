//! The bindings of the rooms below, against the embedded teacher.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{message, run};
use crate::data::{Quotes, TokenSet, windows};
use crate::eval::{Metrics, Reference};
use crate::flow::{Block, Skip};
use crate::pythia::Pythia;

/// `m`, `d` and the block {6,8} of the embedded teacher.
const SETUP: &str = "local m = lft.pythia.load('data/teacher') \
    local d = lft.data.text('data/corpus/valid.txt', {tokenizer = m.tokenizer, seq_len = 24}) \
    local block = {6, 8} ";

fn check(code: &str) {
    run(&format!("{SETUP}{code}"));
}

fn refusal(code: &str) -> String {
    message(&format!("{SETUP}{code}"))
}

#[test]
fn models_agree_with_themselves() {
    check(
        "assert(m.config.num_hidden_layers == 24 and m.config.use_parallel_residual and m.config.hidden_act == 'gelu')
         assert(tostring(m):find('24 layers') and m.parameter_count > 1e6)
         local ids = m.tokenizer:encode('It was a dark night.')
         assert(m.tokenizer:decode(ids) == 'It was a dark night.' and m.tokenizer:decode(lft.tensor(ids, {dtype = 'u32'})) == 'It was a dark night.')
         assert(m:logits(ids):allclose(m:logits({ids})) and m:logits(lft.tensor({ids}, {dtype = 'i64'})):allclose(m:logits(ids)))
         assert(m:head(m:run(m:hidden(ids, 6), 6, 24)):allclose(m:logits(ids)))
         local text, new = m:generate('It was', {max_tokens = 4})
         local again, same = m:generate(m.tokenizer:encode('It was'), {max_tokens = 4, temperature = 0})
         assert(#new == 4 and text == again and table.concat(new) == table.concat(same))
         local a, b = {temperature = 1.5, top_k = 50, top_p = 0.95, seed = 3, max_tokens = 8}, nil
         assert(m:generate('It was', a) == m:generate('It was', a))
         assert(lft.pythia.load('data/teacher', {dtype = 'bf16'}):hidden(ids, 3):dtype() == 'bf16')",
    );
}

#[test]
fn references_and_skips_are_those_of_the_rooms() -> anyhow::Result<()> {
    let teacher = Arc::new(Pythia::load("data/teacher", DType::F32, &Device::Cpu)?);
    let corpus = TokenSet::read(&["data/corpus/valid.txt"], Quotes::Kept, teacher.tokenizer()?, 4096)?;
    let rows: Vec<u32> = windows(&corpus, 24, Some(2))?.flatten().collect();
    let ids = [Tensor::from_vec(rows, (2, 25), &Device::Cpu)?];
    let block = Block::new(6, 12, 24)?;
    let reference = Reference::new(teacher, block, &ids, |_| ())?;
    let Metrics { kl, nmse, ppl, teacher_ppl, tokens, .. } = reference.skip(&Skip::new(8, 2, 24)?)?;
    check(&format!(
        "local ref = lft.eval.reference(m, {{data = d, block = {{6, 12}}, windows = 2}})
         assert(ref.teacher_ppl == {teacher_ppl:?} and ref.block[1] == 6)
         for _, r in ipairs{{ref:skip{{from = 8, count = 2}}, lft.flow.skip(m, {{from = 8, count = 2}}):evaluate{{data = ref}}}} do
           assert(r.kl == {kl:?} and r.nmse == {nmse:?} and r.ppl == {ppl:?} and r.tokens == {tokens} and r.nfe == 0)
         end
         local s = lft.flow.student(m, {{block = {{6, 12}}}})
         local whole, fixed = ref:skip{{from = 6, count = 6}}, s:evaluate{{data = ref, solver = 'rk4', steps = 2}}
         assert(fixed.kl == whole.kl and fixed.nfe == 8)
         local own = s:evaluate{{data = d, batches = 1, batch = 2}}
         assert(own.kl == whole.kl and own.nfe == 6)
         local p = m:logits({{1, 2, 3}})
         assert(lft.eval.kl(p, lft.flow.skip(m, {{from = 8, count = 2}}):logits({{1, 2, 3}})) > 0)"
    ));
    Ok(())
}

#[test]
fn training_is_reproducible_and_students_together_are_students_alone() {
    check(
        "local function student() return lft.flow.student(m, {block = block, seed = 4}) end
         local function weights(s)
           local names, parts = {}, {}
           for name in pairs(s.velocity:parameters()) do names[#names + 1] = name end
           table.sort(names)
           for i, name in ipairs(names) do parts[i] = s.velocity:parameters()[name]:reshape(-1) end
           return lft.cat(parts, 1)
         end
         local exact = {rtol = 0, atol = 0}
         local one = student()
         local r = one:train{method = 'hybrid', data = d, steps = 3, batch = 2, seed = 7}
         local pair = {
           {student = student(), method = 'fm', steps = 2},
           {student = student(), method = 'hybrid'},
         }
         local both = lft.train.together(pair, {data = d, steps = 3, batch = 2, seed = 7})
         assert(both[2].loss == r.loss and both[1].steps == 2 and r.tokens == 3 * 2 * 24)
         assert(weights(one):allclose(weights(pair[2].student), exact))
         assert(not weights(one):allclose(weights(student())))
         local other = student()
         other:train{method = 'hybrid', data = d, steps = 3, batch = 2, seed = 8}
         assert(not weights(one):allclose(weights(other)))",
    );
}

#[test]
fn own_loops_see_what_training_sees() {
    check(
        "local s = lft.flow.student(m, {velocity = lft.flow.velocity(m, {block = block, init = 'teacher'})})
         local u, ids = s.velocity, nil
         for batch in d:batches{batch = 2, seed = 5, steps = 1} do ids = batch end
         local x0, x1 = s:latents(ids)
         local function same(x, t) return u(x, t) end
         local losses = {
           fm = function(f) return lft.flow.matching_loss(f, x0, x1, {seed = 5}) end,
           fw = function(f) return lft.flow.walking_loss(f, x0, x1, {seed = 5, walk = 2, solver = 'heun'}) end,
           regression = function(f) return lft.flow.regression_loss(f, x0, x1) end,
         }
         for method, loss in pairs(losses) do
           local of_field, of_function = loss(u):item(), loss(same):item()
           assert(math.abs(of_field - of_function) <= 1e-5 * of_field, method)
           local copy = lft.flow.velocity(m, {block = block, init = 'teacher'})
           local r = lft.flow.student(m, {velocity = copy}):train{
             method = method, data = d, batch = 2, steps = 1, seed = 5, walk = 2, solver = 'heun'}
           assert(r.loss == of_field, method)
         end
         local count = 0
         for step = 1, 2 do
           local grads = losses.fw(same):backward()
           for name, v in pairs(u:parameters()) do
             -- The adaLN projection starts at zero, which hides the time MLP behind it during the first step.
             assert(grads[v] and (step == 1 or grads[v]:abs():sum():item() > 0), name)
             v:set(v - 1e-3 * grads[v])
             count = count + 1
           end
         end
         assert(count > 20 and losses.fw(u):item() ~= losses.fw(lft.flow.velocity(m, {block = block, init = 'teacher'})):item())
         assert(lft.flow.matching_loss(u, x0, x1, {t = 0.5}):allclose(lft.flow.matching_loss(u, x0, x1, {t = lft.tensor({0.5, 0.5})})))
         local zero, one = lft.zeros({2}), lft.ones({2})
         local straight = lft.flow.walking_loss(u, x0, x1, {times = {zero, one}, solver = 'euler'})
         assert(straight:allclose(lft.flow.regression_loss(u, x0, x1)))",
    );
}

#[test]
fn functions_are_fields_and_states_may_be_numbers() {
    check(
        "local u = lft.flow.velocity(m, {block = block, init = 'teacher'})
         local x0 = m:hidden({{1, 2, 3}}, 6)
         local options = {method = 'midpoint', steps = 2}
         local a, stats = lft.ode.solve(u, x0, options)
         local b = lft.ode.solve(function(x, t) return u(x, t) end, x0, options)
         assert(a:allclose(b, {rtol = 0, atol = 0}) and stats.nfe == 4 and stats.accepted == 2 and stats.saved == nil)
         local e, adaptive = lft.ode.solve(function(x, t) return -x end, 1, {t1 = 2, rtol = 1e-9, atol = 1e-9, save_at = {0, 1, 2}})
         assert(math.abs(e - math.exp(-2)) < 1e-7 and #adaptive.saved == 3 and math.abs(adaptive.saved[2] - math.exp(-1)) < 1e-6)
         local circle = lft.ode.solve(function(x, t) return {x[2], -x[1]} end, {1, 0}, {t1 = 2 * math.pi})
         assert(math.abs(circle[1] - 1) < 1e-3 and math.abs(circle[2]) < 1e-3)
         local v = lft.var(lft.ones({3}))
         local y = lft.ode.solve(function(x, t) return x * 2 end, v, {method = 'euler', steps = 2})
         assert(math.abs(y:sum():backward()[v][1]:item() - 4) < 1e-5)",
    );
    let refused =
        refusal("\nlft.ode.solve(function(x, t) return t end, lft.ones({2}), {method = 'euler', steps = 1})");
    assert_eq!(
        refused,
        "script.lua:2: lft.ode.solve: the function f(x, t) must return the velocity of x: expected Tensor, found number 0"
    );
    let own = refusal("\nlocal function f(x, t)\nreturn x + nothing\nend\nlft.ode.solve(f, 1, {steps = 1})");
    assert!(own.starts_with("script.lua:3: "), "{own}");
    let refused = refusal("lft.ode.solve(function(x, t) return x end, 1, {method = 'rk4'})");
    assert_eq!(refused, "script.lua:1: lft.ode.solve: rk4 is a fixed-step solver: set steps");
}

#[test]
fn students_are_saved_and_loaded() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("student");
    check(&format!(
        "local s = lft.flow.student(m, {{block = block}})
         s:train{{method = 'fm', data = d, steps = 2, batch = 2}}
         s:save('{}')
         local t = lft.flow.load('{0}', m)
         local options = {{solver = 'euler', steps = 2}}
         assert(s:logits({{1, 2, 3}}, options):allclose(t:logits({{1, 2, 3}}, options), {{rtol = 0, atol = 0}}))
         local text, ids = t:generate('It was', {{max_tokens = 3, solver = 'euler', steps = 2}})
         assert(text == s:generate('It was', {{max_tokens = 3, solver = 'euler', steps = 2}}))
         local greedy = s:logits({{m.tokenizer:encode('It was')}}, options)[1][-1]:argmax(1):item()
         assert(ids[1] == greedy - 1)",
        path.display()
    ));
    assert!(Path::new(&path).join("velocity.safetensors").is_file());
    Ok(())
}

#[test]
fn divergence_is_an_error_and_keeps_weights_and_curve() {
    check(
        "local s = lft.flow.student(m, {block = block})
         local run = lft.run{name = 'diverges'}
         local ok, err = pcall(s.train, s, {method = 'fm', data = d, steps = 9, batch = 2, lr = 1e30, clip = 1e30, warmup = 0, run = run})
         assert(not ok and err:find('diverged at step') and err:find('script.lua:3'), err)
         for name, v in pairs(s.velocity:parameters()) do
           local total = v:abs():max():item()
           assert(total == total and total < math.huge, name)
         end
         local rows = lft.query(\"SELECT step, method, block FROM training WHERE run = 'diverges'\")
         assert(#rows >= 1 and rows[1].step == 1 and rows[1].method == 'fm' and rows[1].block == '{6,8}')",
    );
}

#[test]
fn mistakes_are_named_where_they_are_made() {
    for (code, expected) in [
        (
            "lft.flow.student(m, {block = {6, 30}})",
            "lft.flow.student: block {6,30} does not lie in a model of 24 layers",
        ),
        (
            "lft.flow.velocity(m, {block = {6}})",
            "option 'block' must be two boundaries {m, n}, found 1 numbers",
        ),
        ("lft.flow.velocity(m, {blok = {6, 8}})", "unknown option 'blok' (did you mean 'block'?)"),
        ("lft.flow.velocity(m, {block = block, init = 'teachr'})", "(did you mean \"teacher\"?)"),
        ("lft.flow.velocity(m, {block = block, init = 'teacher', layer = 24})", "layer 24 does not exist"),
        (
            "m:hidden({{1, 4096}}, 6)",
            "Pythia:hidden: token id 4096 is outside the model's vocabulary 0..=4095",
        ),
        ("m:hidden({{1}}, 25)", "boundary 25 does not exist"),
        ("m:hidden({{1}, {1, 2}}, 1)", "rows"),
        ("m:run(lft.ones({1, 2, 3}), 0, 1)", "latents must have the shape (batch, tokens, 128)"),
        ("m:run(lft.ones({2}):to{dtype = 'f23'}, 0, 1)", "(did you mean \"f32\"?)"),
        ("lft.pythia.load('nowhere/at/all')", "nowhere/at/all"),
        ("lft.data.text('nowhere.txt', {tokenizer = m.tokenizer})", "reading the corpus nowhere.txt"),
        ("lft.data.text('data/corpus/valid.txt', {})", "option 'tokenizer' is missing"),
        ("d:windows{count = 0}", "at least one window"),
        ("for _ in d:batches{batch = 0} do end", "option 'batch' must be at least 1"),
        ("lft.ode.solve(m, lft.ones({1}))", "expected a VelocityField or a function f(x, t), found Pythia"),
        ("lft.ode.solve(print, 1, {method = 'rk5'})", "(did you mean \"rk4\"?)"),
        ("lft.flow.student(m, {block = block}):train{data = d, method = 'fv'}", "(did you mean \"fm\"?)"),
        (
            "lft.flow.student(m, {block = block}):train{data = d, betas = {1}}",
            "option 'betas' must be two numbers",
        ),
        ("lft.flow.student(m, {block = block}):train{data = d, lr = -1}", "lr = -1"),
        ("lft.flow.student(m, {block = block}):train{method = 'fm'}", "option 'data' is missing"),
        (
            "lft.train.together({{student = m}}, {data = d})",
            "student 1: option 'student': expected Student, found Pythia",
        ),
        (
            "local u = lft.flow.velocity(m, {block = {6, 12}}) lft.flow.student(m, {block = block, velocity = u})",
            "stands for block {6,12}, not for {6,8}",
        ),
        ("print(m.confg)", "Pythia: has no field or method 'confg' (did you mean 'config'?)"),
        (
            "lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1}):skip{from = 5, count = 1}",
            "do not lie inside block {6,8}",
        ),
        (
            "local ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1}) lft.flow.student(m, {block = block}):evaluate{data = ref, batch = 2}",
            "a Reference has its own",
        ),
        (
            "local ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1}) lft.flow.student(lft.pythia.load('data/teacher'), {block = block}):evaluate{data = ref}",
            "another teacher",
        ),
        (
            "local ref = lft.eval.reference(m, {data = d, block = {6, 8}, windows = 1}) lft.flow.student(m, {block = {6, 12}}):evaluate{data = ref}",
            "block {6,12}",
        ),
        (
            "lft.flow.matching_loss(function(x, t) return lft.ones({1}) end, lft.ones({1, 2, 3}), lft.ones({1, 2, 3}))",
            "lft.flow.matching_loss:",
        ),
        ("lft.flow.recoupling(lft.ones({2, 3}), lft.ones({3, 3}))", "same shape"),
        ("m:generate('', {max_tokens = 1})", "the prompt is empty"),
        ("m:generate('x', {top_p = 2})", "top_p is 2"),
    ] {
        let found = refusal(code);
        assert!(
            found.starts_with("script.lua:1: ") && found.contains(expected),
            "{code}\n{found}\nlacks {expected:?}"
        );
    }
    check(
        "assert(not pcall(lft.flow.skip, m, {from = 23, count = 2}))
         assert(not pcall(lft.flow.velocity(m, {block = block}), lft.ones({1}), 0))
         local ok, err = pcall(lft.flow.student(m, {block = block}).logits, 1)
         assert(not ok and type(err) == 'string')",
    );
}

#[test]
fn own_optimizers_train_as_the_built_in_one_does() {
    check(
        "local function field() return lft.flow.velocity(m, {block = block, seed = 4}) end
         local s = lft.flow.student(m, {velocity = field()})
         local built_in = s:train{method = 'fw', data = d, steps = 6, batch = 2, seed = 7, lr = 3e-3, weight_decay = 0.1}
         local u = field()
         local own = lft.flow.student(m, {velocity = u})
         local opt = lft.optim.adamw{params = u:parameters(), weight_decay = 0.1, betas = {0.9, 0.95}, eps = 1e-8}
         local rate = lft.optim.schedule{lr = 3e-3, steps = 6}
         local step, loss = 0, nil
         for ids in d:batches{batch = 2, seed = 7, steps = 6} do
           step = step + 1
           local x0, x1 = own:latents(ids)
           loss = lft.flow.walking_loss(u, x0, x1, {seed = 7, step = step})
           local drawn = lft.flow.walk_times(2, {seed = 7, step = step})
           assert(loss:item() == lft.flow.walking_loss(u, x0, x1, {times = drawn}):item())
           opt:step(loss:backward(), {lr = rate(step), clip = 1})
         end
         assert(math.abs(loss:item() / built_in.loss - 1) < 1e-6, loss:item())
         for name, v in pairs(u:parameters()) do
           assert(v:allclose(s.velocity:parameters()[name], {rtol = 1e-4, atol = 1e-6}), name)
         end
         local first = lft.flow.walk_times(3, {step = 2})
         assert(first[2]:allclose(lft.flow.walk_times(3, {seed = 0, step = 2})[2]))
         assert(not lft.flow.walk_times(3)[2]:allclose(lft.flow.walk_times(3)[2]))",
    );
    run("local w = lft.var(lft.tensor({1, 2}))
         local opt = lft.optim.sgd{params = {weight = w}, lr = 0.5, momentum = 0.5}
         local grads = (w * lft.tensor({3, 4})):sum():backward()
         assert(opt:step(grads) == 5 and w[1]:item() == -0.5)
         opt:step(grads, {lr = 0})
         assert(w[1]:item() == -0.5)");
}

#[test]
fn optimizers_say_what_they_cannot_take() {
    let w = "local w = lft.var(lft.ones({2})) ";
    for (code, says) in [
        ("lft.optim.adamw{params = {}}", "option 'params' holds no variables"),
        ("lft.optim.adamw{params = {a = w * 1}}", "option 'params': a is no variable"),
        ("lft.optim.adamw{params = {w, w}}", "parameter 2 is given twice"),
        ("lft.optim.adamw{params = {w}, betas = {1, 0.9}}", "beta1 = 1"),
        ("lft.optim.adamw{params = {w}, eps = 0}", "eps = 0"),
        ("lft.optim.sgd{params = {w}, lr = -1}", "option 'lr'"),
        ("lft.optim.sgd{params = {w}, momentun = 1}", "did you mean 'momentum'?"),
        (
            "lft.optim.sgd{params = {w}}:step((w * 1e38 * 1e38):sum():backward())",
            "the gradient's norm is inf",
        ),
        ("lft.optim.sgd{params = {w}}:step(w:sum():backward(), {clip = 0})", "option 'clip'"),
        ("local v = lft.var(w) lft.optim.sgd{params = {v}}:step(w:sum():backward())", "received no gradient"),
        ("lft.optim.schedule{steps = 5}(0)", "steps are counted from 1"),
        ("lft.optim.schedule{steps = 5, final_lr = 2}", "final_lr = 2"),
    ] {
        let found = message(&format!("{w}{code}"));
        assert!(found.starts_with("script.lua:1: ") && found.contains(says), "{says:?} in {found}");
    }
}

#[test]
fn tableaux_make_solvers() {
    run("local f = function(x, t) return -x end
         local kutta = {a = {{}, {1/2}, {-1, 2}}, b = {1/6, 2/3, 1/6}, c = {0, 1/2, 1}}
         local coarse, stats = lft.ode.solve(f, 1, {method = kutta, steps = 32})
         local fine = lft.ode.solve(f, 1, {method = kutta, steps = 64})
         local ratio = (coarse - math.exp(-1)) / (fine - math.exp(-1))
         assert(stats.nfe == 96 and math.abs(ratio - 8) < 0.8, ratio)
         local rk4 = {a = {{0, 0, 0, 0}, {1/2, 0, 0, 0}, {0, 1/2, 0, 0}, {0, 0, 1, 0}}, b = {1/6, 1/3, 1/3, 1/6}, c = {0, 1/2, 1/2, 1}}
         assert(lft.ode.solve(f, 2, {method = rk4, steps = 3}) == lft.ode.solve(f, 2, {method = 'rk4', steps = 3}))
         local bosh3 = {
           a = {{}, {1/2}, {0, 3/4}, {2/9, 1/3, 4/9}}, b = {2/9, 1/3, 4/9, 0}, c = {0, 1/2, 3/4, 1},
           b_err = {2/9 - 7/24, 1/3 - 1/4, 4/9 - 1/3, -1/8},
         }
         local own, cost = lft.ode.solve(f, lft.ones({2}), {method = bosh3, rtol = 1e-4})
         local built_in, same = lft.ode.solve(f, lft.ones({2}), {method = 'bosh3', rtol = 1e-4})
         assert(own:allclose(built_in) and cost.nfe == same.nfe and cost.accepted == same.accepted)");
    let solve = |method: &str| {
        message(&format!("lft.ode.solve(function(x) return x end, 1, {{method = {method}, steps = 1}})"))
    };
    for (method, says) in [
        ("{a = {{}}, b = {1}}", "option 'c' is missing"),
        ("{a = {{}}, b = {0.9}, c = {0}}", "the weights b sum to 0.9"),
        ("{a = {{0.5}}, b = {1}, c = {0.5}}", "the method is implicit"),
        ("{a = {{}}, b = {1}, c = {0}, name = 'mine', d = 1}", "unknown option 'd'"),
    ] {
        let found = solve(method);
        assert!(found.starts_with("script.lua:1: lft.ode.solve: ") && found.contains(says), "{found}");
    }
}
