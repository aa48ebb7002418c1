//! Benchmarks of scripts end to end: their table, baselines and exit codes.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use lft::results::Catalog;
use program::{lft, output};
use tempfile::TempDir;

/// A folder with a script and the runs it makes.
struct Desk(TempDir);

impl Desk {
    fn new(code: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.write(code);
        desk
    }

    fn write(&self, code: &str) {
        fs::write(self.0.path().join("script.lua"), format!("local lft = require('lft')\n{code}\n")).unwrap();
    }

    fn runs(&self) -> PathBuf {
        self.0.path().join("runs")
    }

    /// Exit code, standard output and standard error of `lft run script.lua` with more arguments.
    fn run(&self, more: &[&str]) -> (i32, String, String) {
        let mut command = lft(&self.runs());
        command.current_dir(self.0.path());
        output(&mut command, &[&["--device", "cpu", "run", "script.lua"], more].concat())
    }

    /// The answer to a query as CSV.
    fn query(&self, sql: &str) -> String {
        let (code, stdout, stderr) = output(&mut lft(&self.runs()), &["query", sql, "--format", "csv"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{sql}");
        stdout
    }
}

/// A script whose one benchmark takes about so many milliseconds.
fn waits(milliseconds: u32) -> String {
    format!(
        "lft.bench('wait', {{warmup = 1, samples = 5}}, function()
           local till = os.clock() + {milliseconds} / 1000
           while os.clock() < till do end
         end)"
    )
}

#[test]
fn benchmarks_are_kept_in_their_table_with_memory_and_evaluations() {
    let desk = Desk::new(
        "local f = function(x, t) return x * 0.5 end
         local run = lft.run{name = 'speed'}
         local options = {warmup = 1, samples = 5, throughput = {40, 'steps'}, run = run}
         local r = lft.bench('solve', options, function()
           local held = lft.zeros({16 << 20})
           lft.ode.solve(f, lft.ones({8}), {method = 'rk4', steps = 10})
         end)
         assert(r.nfe == 40 and r.unit == 'steps' and #r.times == 5 and r.samples == 5, r.nfe)
         assert(r.throughput == 40 / r.median and r.ci[1] == r.ci.lo and r.ci[2] == r.ci.hi)
         assert(r.outliers.total >= r.outliers.high_severe)
         -- 64 MiB for each call, counted to within 64 KiB; a sample may hold several before the collector comes.
         assert(r.peak_bytes >= (64 << 20) - (64 << 10) and r.peak_bytes < (r.iterations + 1) * (65 << 20), r.peak_bytes)
         run:finish()
         lft.bench('alone', {warmup = 0, samples = 2}, function() end)",
    );
    let (code, _, stderr) = desk.run(&["--quiet"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        desk.query("SELECT run, name, unit, nfe, samples FROM benchmarks ORDER BY run"),
        "run,name,unit,nfe,samples\nscript,alone,,0.0,2\nspeed,solve,steps,40.0,5\n"
    );
    let outside = "SELECT count(name) AS n FROM benchmarks WHERE median < ci_lo OR median > ci_hi";
    assert_eq!(desk.query(outside), "n\n0\n");
    let rows: Vec<usize> =
        Catalog::read(&desk.runs()).unwrap().entries.iter().map(|e| e.record.benchmarks_rows).collect();
    assert_eq!(rows, [1, 1]);
}

#[test]
fn a_regression_sets_the_exit_code_and_says_what_and_by_how_much() {
    let desk = Desk::new(&waits(2));
    let (code, _, stderr) = desk.run(&["--save-baseline", "main"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("baseline saved: ") && stderr.contains("baselines/main/script.json"), "{stderr}");

    // Wide enough for the noise of a busy machine.
    let (code, _, stderr) = desk.run(&["--baseline", "main", "--tolerance", "900"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("wait takes ") && stderr.contains("held against baseline `main`"), "{stderr}");

    desk.write(&waits(100));
    let (code, _, stderr) = desk.run(&["--quiet", "--baseline", "main", "--tolerance", "900"]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.starts_with("error: slower than in baseline `main`: wait takes "), "{stderr}");
    assert!(stderr.contains("times as long (95 % interval "), "{stderr}");
    let statuses = desk.query("SELECT count(run) AS runs FROM runs WHERE status = 'finished'");
    assert_eq!(statuses, "runs\n3\n", "a regression is no failure of the run");
}

#[test]
fn baselines_that_cannot_be_compared_with_are_told_before_the_script_runs() {
    let desk = Desk::new("print('ran')");
    let (code, stdout, stderr) = desk.run(&["--baseline", "main"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("there is no baseline `main` of this script"), "{stderr}");
    let (code, stdout, stderr) = desk.run(&["--save-baseline", "main"]);
    assert_eq!((code, stdout.as_str()), (1, "ran\n"));
    assert!(stderr.contains("ran no lft.bench"), "{stderr}");
    assert_eq!(desk.run(&["--tolerance", "5"]).0, 2, "a tolerance needs a baseline");
    assert_eq!(desk.run(&["--baseline", "main", "--tolerance", "-1"]).0, 2);
}

/// Runs one of the repository's scripts, small, with flags in the form `--name value --name value`; what it printed, and
/// the page that it wrote.
fn example(desk: &Desk, name: &str, flags: &str) -> (String, String) {
    let at = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string();
    let page = desk.0.path().join("page.html").display().to_string();
    let (script, teacher, valid) =
        (at(&format!("scripts/{name}")), at("data/teacher"), at("data/corpus/valid.txt"));
    let mut arguments =
        vec!["--quiet", "--device", "cpu", "run", &script, "--", "--teacher", &teacher, "--valid", &valid];
    arguments.extend(["--block", "6,8", "--seq_len", "8", "--report", &page]);
    arguments.extend(flags.split(' '));
    let (code, stdout, stderr) = output(&mut lft(&desk.runs()), &arguments);
    assert_eq!((code, stderr.as_str()), (0, ""));
    (stdout, fs::read_to_string(page).unwrap())
}

#[test]
fn every_solver_is_measured_at_equal_error() {
    let desk = Desk::new("");
    let flags = "--batch 1 --steps 8,64 --flow_steps 1,2 --samples 1 --warmup 0";
    let (stdout, html) = example(&desk, "bench_solvers.lua", flags);
    assert!(stdout.contains("NFE at 0.01") && stdout.contains("tsit5 adaptive"), "{stdout}");
    let solvers = desk.query("SELECT count(DISTINCT solver) AS n FROM results WHERE problem = 'latents'");
    assert_eq!(solvers, "n\n8\n");
    let exact = "SELECT count(solver) AS n FROM results WHERE problem = 'circle' AND mode = 'adaptive' \
                 AND rtol < 0.000000001 AND error > 0.0000001";
    assert_eq!(
        desk.query(exact),
        "n\n0\n",
        "a tight tolerance is kept on the problem whose solution is known"
    );
    assert!(html.contains("data-chart=\"precision-nfe-0\"") && html.contains("precision-seconds-2"));
}

/// A sweep over four points of the small teacher whose functions count themselves in a file each.
fn sweep(more: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!(
        "local m = lft.pythia.load('{root}/data/teacher')
         local d = lft.data.text('{root}/data/corpus/valid.txt', {{tokenizer = m.tokenizer, seq_len = 8}})
         local points = lft.sweep{{name = 'lrs', grid = {{lr = {{1e-3, 2e-3}}, method = {{'fm', 'fw'}}}}, at_once = 2, run = function(config, run)
           local s = lft.flow.student(m, {{block = {{6, 8}}, seed = 1}})
           local r = s:train{{method = config.method, lr = config.lr, data = d, steps = 3, batch = 2, run = run}}
           {more}
           return {{loss = r.loss}}
         end}}
         for _, p in ipairs(points) do print(p.config.lr, p.config.method, p.status, p.kept, p.result.loss ~= nil) end
         print(points.failed, points.teacher_passes)"
    )
}

#[cfg(unix)]
#[test]
fn a_sweep_that_was_killed_goes_on_where_it_stopped() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    // The third point reports that it runs, and waits to be killed.
    let desk = Desk::new(&sweep(
        "if config.lr == 2e-3 and not io.open('go') then print('waiting') while true do end end",
    ));
    let mut command = lft(&desk.runs());
    command.current_dir(desk.0.path()).args(["--quiet", "--device", "cpu", "run", "script.lua"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "waiting\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let finished = "SELECT run, loss > 0 AS trained FROM results WHERE run LIKE 'lrs/%' ORDER BY run";
    let first = "run,trained\n\"lrs/lr=0.001,method=fm\",true\n\"lrs/lr=0.001,method=fw\",true\n";
    assert_eq!(desk.query(finished), first);

    fs::write(desk.0.path().join("go"), "").unwrap();
    let (code, stdout, stderr) = desk.run(&["--quiet"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let expected = "0.001\tfm\tfinished\ttrue\ttrue\n0.001\tfw\tfinished\ttrue\ttrue\n\
                    0.002\tfm\tfinished\tfalse\ttrue\n0.002\tfw\tfinished\tfalse\ttrue\n0\t3\n";
    assert_eq!(stdout, expected, "two points of three steps on three teacher passes");
    assert_eq!(
        desk.query("SELECT count(loss) AS n FROM results WHERE latest AND run LIKE 'lrs/%'"),
        "n\n4\n"
    );
    let (_, again, _) = desk.run(&["--quiet"]);
    assert!(again.ends_with("0\t0\n") && !again.contains("false"), "nothing is run a third time: {again}");
}

#[test]
fn a_failing_point_is_reported_and_the_others_finish() {
    let desk = Desk::new(&sweep("if config.method == 'fm' and config.lr == 1e-3 then error('no luck') end"));
    let (code, stdout, stderr) = desk.run(&["--quiet"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("warning: sweep lrs, lr=0.001,method=fm: ") && stderr.contains("no luck"),
        "{stderr}"
    );
    assert!(stdout.starts_with("0.001\tfm\tfailed\tfalse\tfalse\n"), "{stdout}");
    assert_eq!(stdout.matches("finished").count(), 3);
    let failed = desk.query("SELECT run, error FROM runs WHERE status = 'failed'");
    assert!(failed.contains("lrs/lr=0.001,method=fm") && failed.contains("no luck"), "{failed}");
}

#[test]
fn the_example_sweeps_a_grid_on_one_teacher_pass() {
    let desk = Desk::new("");
    let train = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/corpus/valid.txt");
    let flags = format!("--train {} --steps 4 --windows 2 --lrs 0.001,0.002 --walks 1,2", train.display());
    let (stdout, html) = example(&desk, "sweep.lua", &flags);
    assert!(stdout.starts_with("4 points, 0 failed, 4 teacher passes\n"), "{stdout}");
    let rows =
        desk.query("SELECT lr, walk FROM results WHERE kl > 0 AND run LIKE 'sweep/%' ORDER BY lr, walk");
    assert_eq!(rows, "lr,walk\n0.001,1\n0.001,2\n0.002,1\n0.002,2\n");
    assert!(html.contains("</html>"));
}
