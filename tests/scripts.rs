//! Scripts end to end: what runs keep, how scripts end, and what bad input is told.

mod program;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use lft::results::{Catalog, RunRecord, Status};
use program::{lft, output};
use tempfile::TempDir;

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher");
const VALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpus/valid.txt");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/parallel_rot25");

/// A folder with a script and the runs it makes.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// The program in this folder.
    fn lft(&self) -> Command {
        let mut command = lft(&self.path("runs"));
        command.current_dir(self.0.path());
        command
    }

    /// `script.lua` with `lft` loaded in its first line.
    fn script(&self, code: &str) -> &Self {
        self.write("script.lua", format!("local lft = require('lft')\n{code}\n"))
    }

    fn run(&self, code: &str) -> (i32, String, String) {
        self.script(code);
        output(&mut self.lft(), &["--quiet", "--device", "cpu", "run", "script.lua"])
    }

    /// Starts the script, reads its first line, and closes the pipe that it prints to.
    fn start(&self) -> (Child, String) {
        let mut command = self.lft();
        command.args(["--quiet", "run", "script.lua"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line)
    }

    /// Runs a script that must end well; what it printed.
    fn well(&self, code: &str) -> String {
        let (status, stdout, stderr) = self.run(code);
        assert_eq!((status, stderr.as_str()), (0, ""), "{code}");
        stdout
    }

    /// A model of four layers, changed in one file.
    fn model(&self, name: &str, change: impl FnOnce(&Path)) -> &Self {
        fs::create_dir_all(self.path(name)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(Path::new(TINY).join(file), self.path(name).join(file)).unwrap();
        }
        change(&self.path(name));
        self
    }

    fn records(&self) -> Vec<RunRecord> {
        let catalog = Catalog::read(&self.path("runs")).unwrap();
        assert_eq!(catalog.warnings, [""; 0]);
        catalog.entries.into_iter().map(|entry| entry.record).collect()
    }

    fn record(&self) -> RunRecord {
        let [record] = <[_; 1]>::try_from(self.records()).unwrap();
        record
    }

    /// The answer to a query as CSV.
    fn query(&self, sql: &str) -> String {
        let (status, stdout, stderr) = output(&mut self.lft(), &["query", sql, "--format", "csv"]);
        assert_eq!((status, stderr.as_str()), (0, ""), "{sql}");
        stdout
    }
}

/// One line that names the place and says what is wrong; after it nothing but the script's traceback.
fn assert_one_clear_line(stderr: &str, place: &str, says: &str) {
    let mut lines = stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with(&format!("error: {place}")) && first.contains(says), "{says:?} in: {stderr}");
    assert!(lines.all(|line| line == "stack traceback:" || line.starts_with('\t')), "{stderr}");
}

#[test]
fn a_run_keeps_what_the_script_says() {
    let desk = Desk::new();
    desk.script(
        "local o = lft.options{steps = {300, 'training steps'}, solver = 'midpoint'}
         local run <close> = lft.run{name = 'first', tags = {'a', 'b'}, options = {block = {6, 18}, k = 2}}
         run:log{method = 'fm', k = 1, kl = 0.5, fast = true}
         run:log{method = 'fw', k = 2, kl = 1 / 3}
         for step = 1, 3 do run:log_training{step = step, loss = 1 / step} end
         local path = run:save('weights', {w = lft.ones({2, 3})})
         assert(lft.safetensors.load(path).w:sum():item() == 6)
         local rows = lft.query(\"SELECT * FROM results WHERE run = 'first' ORDER BY kl\")
         assert(#rows == 2 and math.type(rows[1].k) == 'integer' and rows[2].fast and rows[1].kl == 1 / 3)
         run:report('pages/first.html')
         lft.report{runs = {run, 'first'}, output = 'pages/all.html', title = 'All'}
         print(run.name, run.folder)",
    );
    let arguments = ["run", "script.lua", "--seed", "7", "--device", "cpu", "--", "--steps", "5"];
    let (status, stdout, stderr) = output(&mut desk.lft(), &arguments);
    assert_eq!(status, 0, "{stderr}");

    let record = desk.record();
    let folder = desk.path("runs").join(&record.id);
    assert_eq!(stdout, format!("first\t{}\n", folder.display()));
    assert_eq!(stderr, format!("run first: {}\n", folder.display()));
    assert_eq!((record.status, record.error), (Status::Finished, None));
    assert_eq!((record.results_rows, record.training_rows), (2, 3));
    assert_eq!(record.tags, ["a", "b"]);
    assert_eq!(record.arguments, ["--steps", "5"]);
    assert_eq!((record.seed, record.device.as_str()), (Some(7), "cpu"));
    assert_eq!(record.script.as_deref(), Some("script.lua"));
    assert!(record.script_text.unwrap().contains("run:log{method = 'fm'"));
    let options = serde_json::json!({"steps": 5, "solver": "midpoint", "block": [6, 18], "k": 2});
    assert_eq!(serde_json::Value::Object(record.options), options);

    // What was tried stands before what came of it, in every process.
    assert_eq!(
        desk.query("SELECT * EXCLUDE (run_id, latest) FROM results"),
        "run,method,fast,k,kl\nfirst,fm,true,1,0.5\nfirst,fw,,2,0.3333333333333333\n"
    );
    for page in ["pages/first.html", "pages/all.html"] {
        assert!(fs::read_to_string(desk.path(page)).unwrap().contains("</html>"), "{page}");
    }
}

#[test]
fn everything_with_a_method_save_can_be_saved() {
    let desk = Desk::new();
    let stdout = desk.well(&format!(
        "local m = lft.pythia.load('{TINY}')
         local s = lft.flow.student(m, {{block = {{1, 3}}}})
         local run = lft.run{{name = 'save'}}
         print(run:save('student', s))
         lft.flow.load(run.folder .. '/student', m)
         print(run:save('own', {{save = function(self, path) io.open(path, 'w'):write('mine'):close() end}}))
         print(run:save('../../outside', lft.ones({{1}})))
         print(pcall(run.save, run, 'run.json', lft.ones({{1}})))
         print(pcall(run.save, run, 'x', 5))"
    ));
    let folder = desk.path("runs").join(desk.record().id);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(folder.join("student/velocity.safetensors").exists() && lines[0].ends_with("/student"));
    assert_eq!(fs::read_to_string(folder.join("own")).unwrap(), "mine");
    assert_eq!(Path::new(lines[2]).parent(), Some(folder.as_path()));
    assert!(Path::new(lines[2]).exists(), "{}", lines[2]);
    assert!(lines[3].ends_with("run.json.safetensors"), "{stdout}");
    assert!(lines[4].starts_with("false") && lines[4].contains("cannot save integer 5"), "{stdout}");
}

#[test]
fn runs_end_as_their_script_does() {
    let open = "local run = lft.run{name = 'a'} run:log{k = 1}";
    let cases: [(&str, i32, Status, Option<&str>); 7] = [
        ("", 0, Status::Finished, None),
        ("os.exit(true)", 0, Status::Finished, None),
        ("os.exit(3)", 3, Status::Failed, Some("the script ended with exit code 3")),
        ("error('no luck')", 1, Status::Failed, Some("script.lua:3: no luck")),
        ("error({code = 2})", 1, Status::Failed, Some("error object {code = 2}")),
        ("require('module')", 1, Status::Failed, Some("module.lua:2: unexpected symbol near '='")),
        ("pcall(error, 'caught')", 0, Status::Finished, None),
    ];
    for (code, status, ends, reason) in cases {
        let desk = Desk::new();
        desk.write("module.lua", "local x\nx = = 1");
        let (found, _, stderr) = desk.run(&format!("{open}\n{code}"));
        let record = desk.record();
        assert_eq!((found, record.status, record.results_rows), (status, ends, 1), "{code}: {stderr}");
        match reason {
            Some(reason) => assert!(record.error.as_ref().unwrap().ends_with(reason), "{:?}", record.error),
            None => assert_eq!((record.error, stderr.as_str()), (None, ""), "{code}"),
        }
        assert_eq!(desk.query("SELECT k FROM results"), "k\n1\n");
    }
}

#[test]
fn a_closed_run_ends_with_its_block() {
    let desk = Desk::new();
    desk.well(
        "do local run <close> = lft.run{name = 'good'} end
         pcall(function() local run <close> = lft.run{name = 'bad'} error('broke', 0) end)
         local run = lft.run{name = 'late'}
         run:finish() run:finish()
         print(pcall(run.log, run, {k = 1}))",
    );
    let ends: Vec<_> = desk.records().into_iter().map(|r| (r.name, r.status, r.error)).collect();
    let end = |name: &str, status, error: Option<&str>| (name.to_owned(), status, error.map(str::to_owned));
    for expected in [
        end("good", Status::Finished, None),
        end("bad", Status::Failed, Some("broke")),
        end("late", Status::Finished, None),
    ] {
        assert!(ends.contains(&expected), "{ends:?}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_rows_and_marks_the_run() {
    let desk = Desk::new();
    desk.script(
        "local run = lft.run{name = 'endless'}
         run:log{k = 1}
         print('ready')
         pcall(function() while true do end end)
         run:log{k = 2}",
    );
    let (child, line) = desk.start();
    assert_eq!(line, "ready\n");
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(stderr).unwrap(), "error: interrupted\n");
    assert_eq!(status.code(), Some(130));
    assert_eq!(desk.record().status, Status::Interrupted);
    assert_eq!(desk.query("SELECT k FROM results"), "k\n1\n");
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let desk = Desk::new();
    desk.script(
        "for i = 1, 100000 do print(i) end
         lft.table({{a = 1}})
         lft.run{name = 'after'}:log{k = 1}",
    );
    let (child, _) = desk.start();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(desk.record().status, Status::Finished);
}

#[test]
fn nothing_that_a_script_does_ends_the_process() {
    let desk = Desk::new();
    let stdout = desk.well(
        "local function forever(x) return 1 + forever(x) end
         local function through_rust(x) return lft.no_grad(through_rust) end
         print(select(2, pcall(forever)):match('stack overflow'))
         print(select(2, pcall(through_rust)):match('stack overflow'))
         local v = lft.var(lft.ones({1}))
         local t = v
         for _ = 1, 200000 do t = t + v end
         print(t:backward()[v]:item())",
    );
    assert_eq!(stdout, "stack overflow\nstack overflow\n200001.0\n");
}

#[test]
fn errors_before_the_script_runs_have_one_line() {
    let desk = Desk::new();
    desk.write("binary.lua", [0xff, 0xfe, 0x00]).write("syntax.lua", "local x = 1\nx = = 2\n");
    for (script, place, says) in [
        ("nowhere.lua", "cannot read the script nowhere.lua: ", "No such file"),
        (".", "cannot read the script .: ", "directory"),
        ("binary.lua", "binary.lua is not text", ""),
        ("syntax.lua", "syntax.lua:2: ", "unexpected symbol near '='"),
    ] {
        let (status, stdout, stderr) = output(&mut desk.lft(), &["--quiet", "run", script]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{script}");
        assert_one_clear_line(&stderr, place, says);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_results_folder_that_cannot_be_written_is_named() {
    let desk = Desk::new();
    desk.write("file", "").script("lft.run{name = 'a'}");
    let arguments = ["--quiet", "run", "script.lua"];
    let mut command = lft(&desk.path("file/runs"));
    let (status, stdout, stderr) = output(command.current_dir(desk.0.path()), &arguments);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert_one_clear_line(&stderr, "script.lua:2: lft.run: cannot make a run folder in ", "--runs-dir");
}

#[test]
fn bad_input_is_one_clear_line_and_nothing_written_is_lost() {
    let desk = Desk::new();
    let config = |change: fn(&mut serde_json::Value)| {
        move |folder: &Path| {
            let path = folder.join("config.json");
            let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            change(&mut config);
            fs::write(path, config.to_string()).unwrap();
        }
    };
    desk.model("bare", |folder| fs::remove_file(folder.join("model.safetensors")).unwrap())
        .model("half", |folder| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        })
        .model("heads", config(|config| config["num_attention_heads"] = 5.into()))
        .model("layers", config(|config| config["num_hidden_layers"] = 0.into()))
        .model("negative", config(|config| config["hidden_size"] = (-48).into()))
        .model("deeper", config(|config| config["num_hidden_layers"] = 5.into()))
        .model("tokenizer", |folder| {
            fs::copy(Path::new(TEACHER).join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
        })
        .write("empty.txt", "")
        .write("blank.txt", "\n<|endoftext|>\n\n")
        .write("latin.txt", [b'a', 0xe9, b'b']);

    let tiny = format!("local m = lft.pythia.load('{TINY}') ");
    let corpus = |file: &str| {
        format!("local m = lft.pythia.load('{TEACHER}') lft.data.text('{file}', {{tokenizer = m.tokenizer}})")
    };
    let training = |lr: &str| {
        format!(
            "local m = lft.pythia.load('{TEACHER}')
             local d = lft.data.text('{VALID}', {{tokenizer = m.tokenizer, seq_len = 8}})
             local s = lft.flow.student(m, {{block = {{6, 8}}}})
             s:train{{method = 'fm', data = d, steps = 20, batch = 2, run = run, lr = {lr}, warmup = 0, clip = 1e30}}"
        )
    };
    let cases: [(String, &str); 21] = [
        ("lft.pythia.load('./nowhere')".into(), "./nowhere"),
        ("lft.pythia.load('bare')".into(), "bare"),
        ("lft.pythia.load('half')".into(), "model.safetensors"),
        ("lft.pythia.load('heads')".into(), "num_attention_heads"),
        ("lft.pythia.load('layers')".into(), "num_hidden_layers"),
        ("lft.pythia.load('negative')".into(), "config.json"),
        ("lft.pythia.load('deeper')".into(), "layers.4"),
        ("lft.pythia.load('tokenizer')".into(), "vocab"),
        (format!("{tiny} m:logits({{{{1, 97}}}})"), "97"),
        (format!("{tiny} m:logits({{{{-1, 2}}}})"), "-1"),
        (format!("{tiny} m:hidden({{{{1, 2}}}}, 5)"), "boundaries 0..=4"),
        (format!("{tiny} m:run(m:hidden({{{{1, 2}}}}, 1), 3, 1)"), "boundar"),
        (format!("{tiny} lft.flow.student(m, {{block = {{1, 5}}}})"), "{1,5}"),
        (format!("{tiny} lft.flow.velocity(m, {{block = {{-1, 2}}}})"), "-1"),
        (format!("{tiny} lft.flow.student(m, {{block = {{2, 2}}}})"), "{2,2}"),
        (corpus("empty.txt"), "empty.txt"),
        (corpus("blank.txt"), "empty"),
        (corpus("latin.txt"), "latin.txt"),
        (corpus("absent.txt"), "absent.txt"),
        (training("1e30"), "diverged at step 2"),
        (training("-1"), "lr"),
    ];
    for (code, says) in &cases {
        let (status, stdout, stderr) =
            desk.run(&format!("local run = lft.run{{name = 'bad'}} run:log{{k = 1}} {code}"));
        assert_eq!((status, stdout.as_str()), (1, ""), "{code}: {stderr}");
        assert_one_clear_line(&stderr, "script.lua:", says);
    }
    let records = desk.records();
    assert_eq!(records.len(), cases.len());
    assert!(records.iter().all(|r| r.status == Status::Failed && r.error.is_some() && r.results_rows == 1));
    assert_eq!(desk.query("SELECT sum(k) AS k FROM results"), format!("k\n{}\n", cases.len()));
    assert_eq!(
        desk.query("SELECT step FROM training"),
        "step\n1\n",
        "the step before the divergence is kept"
    );
}

#[test]
fn after_a_divergence_the_last_good_weights_remain() {
    let desk = Desk::new();
    let stdout = desk.well(&format!(
        "local m = lft.pythia.load('{TEACHER}')
         local d = lft.data.text('{VALID}', {{tokenizer = m.tokenizer, seq_len = 8}})
         local s = lft.flow.student(m, {{block = {{6, 8}}}})
         local ok, message = pcall(s.train, s, {{method = 'fm', data = d, steps = 9, batch = 2, lr = 1e30, warmup = 0}})
         print(ok, message:match('diverged at step %d+: the weights are kept'))
         s:save('student')
         for _, w in pairs(lft.safetensors.load('student/velocity.safetensors')) do
           local sum = w:sum():item()
           assert(sum == sum, 'NaN')
         end"
    ));
    assert_eq!(stdout, "false\tdiverged at step 2: the weights are kept\n");
}

#[test]
fn a_broken_table_among_good_ones_is_named_and_the_rest_answered() {
    let desk = Desk::new();
    let code = "for _, name in ipairs{'a', 'b', 'c'} do
                  local run <close> = lft.run{name = name}
                  run:log{kl = 0.5}
                end";
    desk.well(code);
    let broken = desk.records().into_iter().find(|record| record.name == "b").unwrap().id;
    let path = desk.path("runs").join(&broken).join("results.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();

    let sql = "SELECT run FROM results ORDER BY run";
    let (status, stdout, stderr) = output(&mut desk.lft(), &["query", sql, "--format", "csv"]);
    assert_eq!((status, stdout.as_str()), (0, "run\na\nc\n"));
    assert!(stderr.starts_with("warning: ") && stderr.contains(&broken), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");

    let (status, stdout, stderr) =
        desk.run(&format!("for _, row in ipairs(lft.query('{sql}')) do print(row.run) end"));
    assert_eq!((status, stdout.as_str()), (0, "a\nc\n"));
    assert!(stderr.starts_with("warning: ") && stderr.contains(&broken), "{stderr}");
}

/// Runs one of the repository's scripts, small; what it printed.
fn example(desk: &Desk, name: &str, flags: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let small = ["--teacher", TEACHER, "--train", VALID, "--block", "6,8", "--batch", "2", "--seq_len", "16"];
    let mut arguments =
        vec!["--quiet", "--device", "cpu", "--seed", "3", "run", script.to_str().unwrap(), "--"];
    arguments.extend(small.iter().chain(flags));
    let (status, stdout, stderr) = output(&mut desk.lft(), &arguments);
    assert_eq!((status, stderr.as_str()), (0, ""), "{name}");
    stdout
}

#[test]
fn flow_walking_from_the_primitives_is_the_built_in_one() {
    let desk = Desk::new();
    let stdout = example(&desk, "own_algorithm.lua", &["--steps", "30"]);
    let after = |word: &str| -> f64 {
        let (_, rest) = stdout.split_once(word).unwrap_or_else(|| panic!("{stdout}"));
        rest.split([',', ' ', '\n']).next().unwrap().parse().unwrap()
    };
    let (own, built_in) = (after("own "), after("built in "));
    assert!(own.is_finite() && (own / built_in - 1.0).abs() < 1e-5, "{stdout}");

    let script =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/own_algorithm.lua")).unwrap();
    let code = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    assert!(code.clone().all(|line| line.len() < 120) && code.count() < 40);
}

#[test]
fn the_agreement_of_walks_is_trained_and_logged() {
    let desk = Desk::new();
    let stdout =
        example(&desk, "shortcut.lua", &["--steps", "3", "--windows", "2", "--ks", "1,2", "--valid", VALID]);
    assert!(stdout.contains("KL, k = 2"), "{stdout}");
    let rows = desk.query("SELECT weight, k FROM results WHERE kl > 0 ORDER BY weight, k");
    assert_eq!(rows, "weight,k\n0.0,1\n0.0,2\n0.5,1\n0.5,2\n");
}

/// 100 MiB at a time. A loop that keeps what it should free is at 1 GiB after ten rounds, so thirty show what a
/// thousand would, which take minutes.
#[cfg(target_os = "linux")]
#[test]
fn temporaries_of_a_loop_are_freed_while_it_runs() {
    let desk = Desk::new();
    let stdout = desk.well(
        "for i = 1, 30 do
           local t = lft.zeros({25 << 20})
           t = t + i
         end
         local status = io.open('/proc/self/status'):read('a')
         print(tonumber(status:match('VmHWM:%s*(%d+) kB')) < 1 << 20)",
    );
    assert_eq!(stdout, "true\n");
}

#[test]
fn errors_inside_a_field_carry_the_scripts_traceback() {
    let field = "local function field(x, t)
  local bad = FAIL
  return x
end
local function integrate()
  local x1 = lft.ode.solve(field, START, {METHOD})
  return x1
end
integrate()";
    let starts = ["1", "{1, 2}", "lft.ones({2})"];
    let methods = ["method = 'rk4', steps = 2", "method = 'tsit5'"];
    let failures = [("error('no field here')", "no field here"), ("lft.zeros('x')", "lft.zeros: argument 1")];
    for (start, method) in starts.into_iter().flat_map(|start| methods.map(|method| (start, method))) {
        for (fail, says) in failures {
            let desk = Desk::new();
            let code = field.replace("FAIL", fail).replace("START", start).replace("METHOD", method);
            let (status, _, stderr) = desk.run(&code);
            assert_eq!(status, 1, "{stderr}");
            assert_one_clear_line(&stderr, "script.lua:3: ", says);
            let traceback: Vec<&str> = stderr.lines().filter(|line| line.contains("script.lua:")).collect();
            assert!(traceback[1].contains("script.lua:3: in "), "{stderr}");
            assert!(traceback.iter().any(|line| line.contains("script.lua:7: in ")), "{stderr}");
        }
    }
}

#[test]
fn tracebacks_are_there_for_handlers_of_ones_own() {
    let desk = Desk::new();
    let stdout = desk.well(
        "local function inner() lft.zeros('x') end
         local ok, text = xpcall(inner, debug.traceback)
         print(ok, text:match('^script.lua:2: lft.zeros'), text:match('script.lua:2: in '), text:find('%[string') )
         print(debug.traceback('here'):match('^here\\nstack traceback:\\n\\tscript.lua:5: in main chunk'))
         print(debug.traceback({}) ~= nil, require('debug') == debug)",
    );
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "false\tscript.lua:2: lft.zeros\tscript.lua:2: in \tnil");
    assert!(lines[1].starts_with("here") && lines.last() == Some(&"true\ttrue"), "{stdout}");
}

/// What the system makes of `./script.lua -- --steps 5` when the script begins with this line.
#[cfg(unix)]
#[test]
fn a_first_line_makes_a_script_a_program() {
    let desk = Desk::new();
    let line = "-S lft --quiet --device cpu run";
    desk.write(
        "script.lua",
        format!("#!/usr/bin/env {line}\nprint(require('lft').options{{steps = 3}}.steps, arg[0])"),
    );
    let program = Path::new(assert_cmd::cargo::cargo_bin!("lft"));
    let path = std::env::join_paths([program.parent().unwrap()]).unwrap();
    let mut command = Command::new("/usr/bin/env");
    let arguments = [line, "script.lua", "--", "--steps", "5"];
    let (status, stdout, stderr) = output(command.current_dir(desk.0.path()).env("PATH", path), &arguments);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, "5\tscript.lua\n", ""));
}
