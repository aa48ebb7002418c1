//! Trainings that are killed, run out of disk, or are resumed wrongly, end to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{lft, output};

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/teacher");
const VALID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpus/valid.txt");
const STEPS: usize = 60;

/// A folder with a text and a script that trains, saves every third step, and writes the model at its end.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new(train: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text: String = fs::read_to_string(VALID).unwrap().chars().take(20_000).collect();
        fs::write(folder.path().join("text.txt"), text).unwrap();
        let script = format!(
            "local lft = require('lft')
             local teacher = '{TEACHER}'
             local text = {{tokenizer = lft.tokenizer.load(teacher), seq_len = 16, order = 'shuffled'}}
             local data = lft.data.text('text.txt', text)
             local run <close> = lft.run{{name = 'killed'}}
             local common = {{
               data = data, steps = {STEPS}, batch = 2, lr = 1e-2, ema = 0.9, seed = 3, run = run, log_every = 5,
               checkpoint = {{dir = 'checkpoints', every = 3, keep = 2}}, resume = true,
             }}
             {train}"
        );
        fs::write(folder.path().join("script.lua"), script).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = lft(&self.path("runs"));
        command.current_dir(self.0.path()).args(["--quiet", "--device", "cpu"]);
        command
    }

    fn run(&self) -> (i32, String, String) {
        output(&mut self.command(), &["run", "script.lua"])
    }

    fn well(&self) {
        let (status, _, stderr) = self.run();
        assert_eq!((status, stderr.as_str()), (0, ""));
    }

    /// The newest step on disk.
    fn newest(&self) -> usize {
        steps(&self.path("checkpoints")).last().copied().unwrap_or(0)
    }

    /// Starts the script and kills it a moment after it has saved some step at or behind `step`.
    fn kill_behind(&self, step: usize, moment: Duration) {
        let mut child = self
            .command()
            .args(["run", "script.lua"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while self.newest() < step && begun.elapsed() < Duration::from_secs(120) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before step {step}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The training table of the newest run, without the wall time.
    fn table(&self) -> String {
        let query = "SELECT * EXCLUDE (seconds, run_id) FROM training WHERE run = 'killed' AND latest ORDER BY method, step";
        let (status, stdout, stderr) = output(&mut self.command(), &["query", query, "--format", "csv"]);
        assert_eq!((status, stderr.as_str()), (0, ""));
        stdout
    }
}

fn steps(folder: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<usize> = names
        .filter_map(|name| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok())
        .collect();
    steps.sort_unstable();
    steps
}

const PRETRAIN: &str = "
    common.valid, common.valid_windows, common.valid_every = data, 2, 7
    local fresh = lft.pythia.new{size = '1x32', vocab_size = 4096, seed = 1}
    lft.train.pretrain(fresh, common):save('model')";

const STUDENTS: &str = "
    local teacher = lft.pythia.load(teacher)
    local function student(layer)
      local u = lft.flow.velocity(teacher, {block = {6, 8}, layer = layer, seed = layer})
      return lft.flow.student(teacher, {block = {6, 8}, velocity = u})
    end
    local one, two = student(6), student(7)
    common.lr, common.ema = nil, nil
    lft.train.together({
      {student = one, method = 'fw', ema = 0.9, accumulate = 2, recompute = true, lr = 1e-2},
      {student = two, method = 'fm', steps = 40, lr = 1e-2, optimizer = 'muon'},
    }, common)
    one:save('model')
    two:save('second')";

#[test]
fn killed_students_end_as_if_they_had_not_been() {
    let (whole, killed) = (Desk::new(STUDENTS), Desk::new(STUDENTS));
    whole.well();
    for (i, step) in [6, 21, 42].into_iter().enumerate() {
        killed.kill_behind(step, Duration::from_micros(5300 * i as u64));
    }
    killed.well();
    for folder in ["model", "second"] {
        let weights = |desk: &Desk| fs::read(desk.path(folder).join("velocity.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&killed), "the weights of {folder} differ");
    }
    assert_eq!(killed.table(), whole.table());
}

#[test]
fn a_killed_pretraining_ends_as_if_it_had_not_been() {
    let (whole, killed) = (Desk::new(PRETRAIN), Desk::new(PRETRAIN));
    whole.well();
    for (i, step) in [3, 12, 18, 30, 45].into_iter().enumerate() {
        killed.kill_behind(step, Duration::from_micros(3700 * i as u64));
    }
    killed.well();
    let model = |desk: &Desk| fs::read(desk.path("model/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&killed), "the weights differ");
    let table = whole.table();
    // The first step, and those divisible by 3, 5 or 7.
    assert_eq!(table.lines().count(), 1 + 34, "{table}");
    assert_eq!(killed.table(), table);
    assert_eq!(steps(&killed.path("checkpoints")), steps(&whole.path("checkpoints")));
    // Once more there is nothing left to do, and the same comes out.
    killed.well();
    assert!(model(&whole) == model(&killed));
    assert_eq!(killed.table(), table);
}

#[test]
fn a_full_disk_ends_the_training_and_leaves_the_last_checkpoint() {
    let desk = Desk::new(PRETRAIN);
    desk.kill_behind(6, Duration::ZERO);
    let last = desk.path(&format!("checkpoints/step-{:09}.safetensors", desk.newest()));
    let before = fs::read(&last).unwrap();
    // Files may grow to 128 KiB: room for the tables, not for a checkpoint.
    let limited = "trap '' XFSZ; ulimit -f 256; exec \"$@\"";
    let program = desk.command();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", limited, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(desk.path(""));
    let (status, _, stderr) = output(&mut shell, &["run", "script.lua"]);
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("cannot save the checkpoint of step"), "{stderr}");
    assert!(stderr.contains("step-0000000") && stderr.contains("File too large"), "{stderr}");
    assert!(fs::read(&last).unwrap() == before);
    let leftovers = fs::read_dir(desk.path("checkpoints")).unwrap().map(|e| e.unwrap().file_name());
    assert!(leftovers.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
    desk.well();
    let whole = Desk::new(PRETRAIN);
    whole.well();
    let model = |desk: &Desk| fs::read(desk.path("model/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&desk));
}

#[test]
fn wrong_resumptions_are_explained() {
    let desk = Desk::new(
        "common.steps = 2\ncommon.checkpoint.dir = 'text.txt'\nlft.train.pretrain(lft.pythia.new{size = '1x32', vocab_size = 4096}, common)",
    );
    let (status, _, stderr) = desk.run();
    assert!(status == 1 && stderr.contains("cannot use the folder text.txt"), "{stderr}");

    let first = "common.steps = 2\nlocal fresh = lft.pythia.new{size = '1x32', vocab_size = 4096}";
    let refused = |more: &str, expected: &str| {
        let desk = Desk::new(&format!(
            "{first}\nlft.train.pretrain(fresh, common)\n{more}\nlft.train.pretrain(fresh, common)"
        ));
        let (status, _, stderr) = desk.run();
        assert!(status == 1 && stderr.contains(expected), "{expected}: {stderr}");
    };
    refused("common.resume = false", "holds checkpoints of an earlier training: resume = true goes on");
    refused("common.lr = 1", "belongs to another training");
    refused("common.checkpoint = nil", "'resume' needs the option 'checkpoint'");
    refused("common.checkpoint = {dri = 'a'}", "did you mean 'dir'");
}
