//! Scripts that try to leave the sandbox, and to outlast their limits.

mod program;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lft::results::{Catalog, Status};
use program::{lft, output};
use tempfile::TempDir;

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher");

/// A folder for the script, and one beside it that holds a secret.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        for folder in ["inside", "outside"] {
            fs::create_dir(desk.path(folder)).unwrap();
        }
        desk.write("outside/secret.txt", "secret\n42\n")
            .write("outside/module.lua", "return 42")
            .write("outside/secret.csv", "secret\n42\n");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// The program in the script's folder.
    fn lft(&self) -> Command {
        let mut command = lft(&self.path("inside/runs"));
        command.current_dir(self.path("inside")).args(["--quiet", "--device", "cpu"]);
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub"));
        command
    }

    fn run(&self, code: &str, flags: &[&str]) -> (i32, String, String) {
        self.write("inside/script.lua", code);
        let mut arguments = vec!["run"];
        arguments.extend(flags);
        arguments.push("script.lua");
        output(&mut self.lft(), &arguments)
    }

    /// What lies outside, which no script may change.
    fn outside(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = [self.path("outside"), self.path("")]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
            .collect();
        files.sort();
        files
    }
}

/// Every way out that came to mind: a function that returns something true when it got there. `OUT` is the folder
/// outside, `link`, `broken` and `up` are links that lead there.
const WAYS_OUT: &[&str] = &[
    // Other programs.
    "os.execute('true')",
    "os.execute()",
    "io.popen('echo out', 'r')",
    "os.getenv('HOME')",
    "os.setlocale('C')",
    // Reading.
    "io.open(OUT .. '/secret.txt')",
    "io.open('../outside/secret.txt')",
    "io.open('./runs/../../outside/secret.txt')",
    "io.open('link')",
    "io.open('up/outside/secret.txt')",
    "io.open('script.lua\\0/../../outside/secret.txt')",
    "io.open(OUT .. '/secret.txt\\0')",
    "io.open('/etc/passwd')",
    "io.open('/proc/self/environ')",
    "io.open('/proc/self/cwd/../outside/secret.txt')",
    "io.open('/dev/stdin')",
    "io.open('')",
    "io.lines(OUT .. '/secret.txt')()",
    "io.lines('link')()",
    "io.input(OUT .. '/secret.txt') and io.read()",
    "loadfile(OUT .. '/module.lua')",
    "loadfile('up/outside/module.lua')",
    "dofile(OUT .. '/module.lua')",
    "lft.safetensors.load(OUT .. '/tensors.safetensors')",
    "lft.safetensors.load('up/outside/tensors.safetensors')",
    "lft.pythia.load(OUT .. '/teacher')",
    "lft.pythia.load('up/outside/teacher')",
    "lft.pythia.load('linked')",
    "lft.flow.load(OUT .. '/student', m)",
    "lft.data.text(OUT .. '/secret.txt', {tokenizer = m.tokenizer})",
    "lft.data.text({'script.lua', 'link'}, {tokenizer = m.tokenizer})",
    "lft.data.open(OUT .. '/tokens')",
    "lft.tokenizer.load(OUT .. '/teacher')",
    "lft.tokenizer.load('linked')",
    "lft.tokenizer.train(OUT .. '/secret.txt', {vocab_size = 300})",
    "lft.report{output = 'report.html', template = OUT .. '/secret.txt'}",
    "run:report{path = 'report.html', template = 'link'}",
    "lft.query(\"SELECT * FROM read_csv('\" .. OUT .. \"/secret.csv')\")",
    "lft.query(\"SELECT * FROM READ_JSON('../outside/secret.csv')\")",
    "lft.query(\"WITH a AS (SELECT * FROM read_parquet('../outside/secret.csv')) SELECT * FROM a\")",
    "lft.query(\"SELECT * FROM '../outside/secret.csv'\")",
    // Writing.
    "io.open(OUT .. '/new', 'w')",
    "io.open('broken', 'w')",
    "io.open('up/new', 'w')",
    "io.output(OUT .. '/new')",
    "os.remove(OUT .. '/secret.txt')",
    "os.remove('up/outside/secret.txt')",
    "os.rename(OUT .. '/secret.txt', 'secret.txt')",
    "os.rename('script.lua', OUT .. '/script.lua')",
    "os.rename('up/outside/secret.txt', 'secret.txt')",
    "os.tmpname():find('/', 1, true)",
    "io.open(OUT .. '/../new', 'w')",
    "lft.safetensors.save(OUT .. '/new.safetensors', {a = lft.ones({1})}) == nil",
    "lft.safetensors.save('broken', {a = lft.ones({1})}) == nil",
    "m:save(OUT .. '/model') == nil",
    "m:save('linked') == nil",
    "lft.flow.student(m, {block = {6, 8}}):save(OUT .. '/student') == nil",
    "m.tokenizer:save(OUT .. '/tokenizer') == nil",
    "lft.flow.student(m, {block = {6, 8}}):export(OUT .. '/exported', {steps = 1})",
    "lft.data.latents(m, {data = own, boundaries = {6}, dir = OUT .. '/latents', windows = 1})",
    "lft.flow.student(m, {block = {6, 8}}):train{method = 'fm', data = own, steps = 1, batch = 1,
       checkpoint = {dir = OUT .. '/checkpoints'}}",
    "lft.train.pretrain(m, {data = own, steps = 1, batch = 1, checkpoint = {dir = OUT .. '/checkpoints'}})",
    "lft.plot.bar{x = {'a'}, y = {1}}:save(OUT .. '/plot.html')",
    "lft.report{output = OUT .. '/report.html'}",
    "run:report{path = OUT .. '/report.html'}",
    "run:report(OUT .. '/report.html')",
    "not run:save('../../../outside/new', lft.ones({1})):find('/runs/', 1, true)",
    "not lft.run{name = '../../outside/new'}.folder:find('/inside/runs/', 1, true)",
    // The network: nothing is downloaded in a test, but trying to would say so.
    "select(2, pcall(lft.pythia.load, 'EleutherAI/pythia-14m')):find('HF_HUB_OFFLINE')",
    // Compiled chunks, which can do anything to the machine.
    "#string.dump(function() end)",
    "#('x').dump(function() end)",
    "load('\\27Lua')",
    "load('\\27Lua', 'x', 'b')",
    "load('\\27Lua', 'x', 'bt')",
    "loadfile('binary.luac')",
    "loadfile('binary.luac', 'b')",
    "dofile('binary.luac')",
    // Modules in C, and modules from elsewhere.
    "package.loadlib('libc.so.6', '*')",
    "package.loadlib('libc.so.6', 'system')",
    "(function() package.cpath = OUT .. '/?.so' return require('module') end)()",
    "(function() package.path = OUT .. '/?.lua' return require('module') end)()",
    "(function() package.path = './?.lua' return require('up.outside.module') end)()",
    "package.searchpath('module', OUT .. '/?.lua')",
    "package.searchpath('secret', '../outside/?.txt')",
    "#package.searchers > 2",
    "package.searchers[3]",
    // The debug library, and what it would give.
    "debug.getregistry or debug.getupvalue or debug.sethook or debug.setmetatable or debug.getinfo",
    "require('debug').getregistry or package.loaded.debug.setupvalue or package.preload.debug",
    "getmetatable(lft.ones({1})) ~= false",
    "getmetatable(io.stdout).__index.popen",
    "setmetatable({}, {__gc = function() end})",
    "load('return debug', 'x', 't', nil) and pcall(load('return debug.getregistry()'))",
    "pcall(load, 'x', 'y', 't', setmetatable({}, {__gc = print}))",
];

#[cfg(unix)]
#[test]
fn no_way_leads_out() {
    use std::os::unix::fs::symlink;
    let desk = Desk::new();
    let outside = desk.path("outside");
    let link = |target: &Path, name: &str| symlink(target, desk.path("inside").join(name)).unwrap();
    link(&outside.join("secret.txt"), "link");
    link(&outside.join("new"), "broken");
    link(desk.0.path(), "up");
    fs::create_dir(desk.path("inside/linked")).unwrap();
    let files = ["config.json", "tokenizer.json", "model.safetensors"];
    fs::create_dir(desk.path("inside/teacher")).unwrap();
    fs::create_dir(desk.path("outside/teacher")).unwrap();
    for file in files {
        let original = Path::new(TEACHER).join(file);
        fs::copy(&original, desk.path("inside/teacher").join(file)).unwrap();
        fs::copy(&original, desk.path("outside/teacher").join(file)).unwrap();
        link(&outside.join("teacher").join(file), &format!("linked/{file}"));
    }
    let compile =
        "local f = io.open('binary.luac', 'wb') f:write(string.dump(function() return 42 end)) f:close()
                   local lft = require('lft')
                   lft.safetensors.save('../outside/tensors.safetensors', {a = lft.ones({1})})";
    assert_eq!(desk.run(compile, &[]), (0, String::new(), String::new()));
    let before = desk.outside();

    let mut code = format!(
        "local lft = require('lft')
         local OUT = {:?}
         local m = lft.pythia.load('teacher')
         local own = lft.data.text('script.lua', {{tokenizer = m.tokenizer, seq_len = 8}})
         local run = lft.run{{name = 'stranger'}}
         run:log{{k = 1}}
         local function try(way, f)
           local ok, value = pcall(f)
           if ok and value then print('out by ' .. way .. ': ' .. tostring(value)) end
         end
",
        outside.display().to_string()
    );
    for way in WAYS_OUT {
        code.push_str(&format!("try([==[{way}]==], function() return {way} end)\n"));
    }
    code.push_str("print('tried')");
    let (status, stdout, stderr) = desk.run(&code, &["--sandbox"]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, "tried\n", ""));
    assert_eq!(desk.outside(), before);
    // The same ways are open without the sandbox, so that they are ways at all.
    let (_, stdout, _) = desk.run(&code, &[]);
    for way in
        ["os.execute", "io.popen", "secret.txt", "string.dump", "read_csv", "teacher", "linked", "broken"]
    {
        assert!(
            stdout.lines().any(|line| line.starts_with("out by ") && line.contains(way)),
            "{way}: {stdout}"
        );
    }
}

#[test]
fn what_a_script_needs_is_left() {
    let desk = Desk::new();
    fs::create_dir(desk.path("inside/lua")).unwrap();
    desk.write("inside/beside.lua", "#!/usr/bin/env lft\nreturn {name = ...}")
        .write("inside/lua/below.lua", "return 6");
    let code = "#!/usr/bin/env -S lft run --sandbox
local lft = require('lft')
assert(require('beside').name == 'beside' and require('below') == 6)
assert(select(2, pcall(require, 'nowhere')):find('nowhere.lua', 1, true))
local file = assert(io.open('notes.txt', 'w'))
file:write('one\\ntwo\\n'):close()
local lines = {}
for line in io.lines('notes.txt') do lines[#lines + 1] = line end
assert(#lines == 2 and io.open('notes.txt'):read('a') == 'one\\ntwo\\n')
assert(os.rename('notes.txt', 'other.txt') and os.remove('other.txt') and not io.open('other.txt'))
local none, message, code = io.open('../outside/secret.txt')
assert(none == nil and message:find('outside of what the sandbox opens', 1, true) and code == 13)
local name = os.tmpname()
lft.safetensors.save(name, {a = lft.ones({2})})
assert(lft.safetensors.load(name).a:sum():item() == 2 and os.remove(name))
local scratch = io.tmpfile()
scratch:write('x')
scratch:seek('set')
assert(scratch:read('a') == 'x')
assert(load('return 1 + 1')() == 2 and load('return x', 'c', 't', {x = 5})() == 5)
assert(load('x = 1', 'c', 'bt') and not load('x = = 1'))
file = io.open('chunk.lua', 'w')
file:write('#!shebang\\nreturn ...'):close()
assert(loadfile('chunk.lua')(7) == 7 and dofile('chunk.lua') == nil)
assert(loadfile('chunk.lua', 't', {})(8) == 8)
assert(os.time() > 0 and os.clock() >= 0 and os.date('%Y'))
local closed
do local thing <close> = setmetatable({}, {__close = function() closed = true end}) end
assert(closed)
local run = lft.run{name = 'inside'}
run:log{k = 1, kl = 0.5}
assert(lft.safetensors.load(run:save('w', {w = lft.ones({2})})).w:sum():item() == 2)
assert(lft.query('SELECT kl FROM results')[1].kl == 0.5)
run:report('pages.html')
print(coroutine.wrap(function() coroutine.yield(5) end)())";
    let (status, stdout, stderr) = desk.run(code, &["--sandbox"]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, "5\n", ""));
    let catalog = Catalog::read(&desk.path("inside/runs")).unwrap();
    assert!(catalog.entries[0].record.git.is_none(), "git was started in a stranger's folder");
    let left: Vec<_> =
        fs::read_dir(desk.path("inside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("lua_")), "{left:?}");
}

#[test]
fn a_folder_that_holds_everything_is_no_sandbox() {
    let desk = Desk::new();
    desk.write("inside/script.lua", "print('ran')");
    let script = desk.path("inside/script.lua");
    for folder in ["/", desk.path("inside").to_str().unwrap()] {
        let mut command = lft(&desk.path("inside/runs"));
        command.current_dir(folder).env("HOME", desk.path("inside"));
        let (status, stdout, stderr) = output(&mut command, &["run", "--sandbox", script.to_str().unwrap()]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{folder}");
        assert!(stderr.contains("change into a folder of its own"), "{stderr}");
    }
}

/// Waits for a child that has to end by itself.
fn ending(mut child: Child) -> (Option<i32>, String, Duration) {
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(60) => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.code(), stderr, begun.elapsed())
}

/// Runs a script under limits, with an input that never comes and an output that nobody reads.
fn limited(code: &str, flags: &[&str]) -> (Option<i32>, String, Duration) {
    let desk = Desk::new();
    desk.write("inside/script.lua", format!("local lft = require('lft')\n{code}\n"));
    let mut command = desk.lft();
    command.arg("run").args(flags).arg("script.lua");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ending(child)
}

/// Tries every script in turn on two threads, the number of cores that a machine has at least.
fn all(scripts: &[&str], flags: &[&str], expected: (i32, &str)) {
    let (left, right) = scripts.split_at(scripts.len() / 2);
    std::thread::scope(|scope| {
        for half in [left, right] {
            scope.spawn(move || {
                for code in half {
                    let (status, stderr, took) = limited(code, flags);
                    assert_eq!(
                        (status, stderr.as_str()),
                        (Some(expected.0), expected.1),
                        "{code}, after {took:?}"
                    );
                }
            });
        }
    });
}

const OUT_OF_TIME: (i32, &str) = (124, "error: the time limit of 300ms was reached\n");

#[test]
fn no_loop_outlasts_the_time_limit() {
    let loops = [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(pcall, pcall, function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "local function again() return pcall(again) or again() end while true do again() end",
        "while true do local co = coroutine.create(function() while true do end end) coroutine.resume(co) end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
        "while true do load(function() while true do end end) end",
        "while true do
           pcall(function()
             local x <close> = setmetatable({}, {__close = function() while true do end end})
             error('on')
           end)
         end",
        "local t = setmetatable({}, {__index = function() while true do end end})
         while true do pcall(function() return t.x end) end",
        "local t = setmetatable({}, {__tostring = function() while true do end end})
         while true do pcall(tostring, t) pcall(error, t) end",
        "while true do pcall(table.sort, {1, 2, 3}, function() while true do end end) end",
        "while true do pcall(string.gsub, 'abc', '.', function() while true do end end) end",
        "local t = lft.ones({1000}) while true do pcall(function() t = t * 1 end) end",
        "while true do pcall(lft.no_grad, function() while true do end end) end",
        "lft.ode.solve(function(x) while true do end end, 1, {method = 'euler', steps = 1})",
        "while true do pcall(lft.ode.solve, function(x) return x end, 1, {method = 'euler', steps = 1000000}) end",
        "for _ = 1, math.huge do pcall(require, 'nowhere') end",
    ];
    all(&loops, &["--sandbox", "--time-limit", "0.3"], OUT_OF_TIME);
    all(&loops[..3], &["--time-limit", "0.3"], OUT_OF_TIME);
}

/// These never come back to Lua, or wait for something: the watchman ends them two seconds later.
#[test]
fn what_never_returns_to_lua_is_ended_from_outside() {
    all(
        &[
            "string.find(('a'):rep(40), ('a*'):rep(40) .. 'b')",
            "table.move({}, 1, math.maxinteger - 1, 2)",
            "io.read()",
            "while true do print(('x'):rep(1000)) end",
        ],
        &["--sandbox", "--time-limit", "0.3"],
        OUT_OF_TIME,
    );
}

#[test]
fn nothing_takes_more_than_the_memory_limit() {
    let takers = [
        "local t = {} while true do t[#t + 1] = {} end",
        "local t = {} while true do pcall(function() while true do t[#t + 1] = {} end end) end",
        "while true do pcall(string.rep, 'x', 1 << 30) end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
        "local t = {}
         while true do
           local ok = pcall(coroutine.wrap(function() while true do t[#t + 1] = 'x' .. #t end end))
         end",
        "while true do pcall(table.concat, setmetatable({}, {__index = function() return ('x'):rep(1e6) end}), '', 1, 1e6) end",
        "while true do pcall(load, function() return ('x'):rep(1e6) end) end",
        "pcall(lft.zeros, {1 << 28})",
        "local t = {} while true do pcall(function() t[#t + 1] = lft.ones({1 << 18}) end) end",
        "local t = {} while true do t[#t + 1] = lft.zeros({1 << 18}) end",
        "local a, b = lft.ones({1 << 14, 1}), lft.ones({1, 1 << 14}) while true do pcall(function() return a * b end) end",
        "local a, b = lft.ones({1 << 14, 1}), lft.ones({1, 1 << 14}) while true do pcall(a.matmul, a, b) end",
        "local t = lft.ones({1 << 20}) while true do t = lft.cat({t, t}) end",
        "local v = lft.var(lft.ones({1 << 16})) local t = v while true do pcall(function() t = t * v end) end",
        "lft.randn({1 << 26})",
        "lft.arange(1 << 26)",
        "lft.zeros({1 << 23}):totable()",
        "lft.ones({1 << 20}):tile(1000)",
    ];
    let flags = ["--sandbox", "--memory-limit", "128MiB", "--time-limit", "50s"];
    all(&takers, &flags, (125, "error: the memory limit of 128.0 MiB was reached\n"));
}

#[test]
fn temporaries_are_no_reason_to_end() {
    let code = "local t = lft.ones({1 << 21}) for i = 1, 200 do t = t * 1.0 end
                local s for i = 1, 200 do s = ('x'):rep(1 << 23) end";
    let (status, stderr, _) = limited(code, &["--sandbox", "--memory-limit", "128MiB"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
}

/// Peak of resident memory while one operation below Lua asks for far more than is allowed.
#[cfg(target_os = "linux")]
#[test]
fn one_operation_below_lua_stays_within_the_memory_limit() {
    let desk = Desk::new();
    fs::create_dir(desk.path("inside/teacher")).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(Path::new(TEACHER).join(file), desk.path("inside/teacher").join(file)).unwrap();
    }
    desk.write(
        "inside/script.lua",
        "local lft = require('lft')
         local run = lft.run{name = 'greedy'}
         run:log{k = 1}
         local m = lft.pythia.load('teacher')
         m:logits(lft.zeros({64, 256}, {dtype = 'u32'}))",
    );
    let mut command = desk.lft();
    command.args(["run", "--sandbox", "--memory-limit", "160MiB", "script.lua"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, stderr, _) = ending(child);
    assert_eq!((status, stderr.as_str()), (Some(125), "error: the memory limit of 160.0 MiB was reached\n"));
    // The heap and, besides, the program itself and the weights, which are mapped from their file.
    assert!(peak < 320 << 10, "{peak} kB");
    let catalog = Catalog::read(&desk.path("inside/runs")).unwrap();
    let record = &catalog.entries[0].record;
    assert_eq!((record.status, record.results_rows), (Status::Failed, 1));
    assert_eq!(record.error.as_deref(), Some("the memory limit of 160.0 MiB was reached"));
}

#[test]
fn a_run_that_reaches_a_limit_keeps_its_rows_and_says_why() {
    for (code, flags) in [
        ("while true do end", ["--time-limit", "0.3"]),
        ("string.find(('a'):rep(40), ('a*'):rep(40) .. 'b')", ["--time-limit", "0.3"]),
        ("local s = ('x'):rep(1 << 30)", ["--memory-limit", "64MiB"]),
    ] {
        let desk = Desk::new();
        let script = format!("local run = require('lft').run{{name = 'a'}} run:log{{k = 1}} {code}");
        let (status, _, stderr) = desk.run(&script, &flags);
        assert!([124, 125].contains(&status), "{code}: {stderr}");
        let catalog = Catalog::read(&desk.path("inside/runs")).unwrap();
        let record = &catalog.entries[0].record;
        assert_eq!((record.status, record.results_rows), (Status::Failed, 1), "{code}");
        assert_eq!(
            record.error,
            stderr.strip_prefix("error: ").map(|line| line.trim_end().to_owned()),
            "{code}"
        );
    }
}

#[test]
fn limits_are_read_strictly() {
    let desk = Desk::new();
    for flags in [
        ["--memory-limit", "many"],
        ["--memory-limit", "1KiB"],
        ["--time-limit", "0"],
        ["--time-limit", "-1"],
    ] {
        let (status, stdout, stderr) = desk.run("print('ran')", &[&format!("{}={}", flags[0], flags[1])]);
        assert_eq!((status, stdout.as_str()), (2, ""), "{flags:?}");
        assert!(stderr.contains(flags[0]), "{stderr}");
    }
}
