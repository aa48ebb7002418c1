//! A report over 200 runs: how long it takes to make, how large it is, and how long a browser takes to open it.
//!
//! The runs are made here: 200 names, each with 60 results (4 methods, 5 solvers, 3 numbers of steps), 6 skip baselines
//! and 4 training curves of 200 points. The browser, headless Chromium where there is one, loads the file and tells by its
//! own clock, from the start of the navigation, when the page was first shown, when the charts near the screen were drawn,
//! and when all of them were, which it is told to draw right after the first ones, as printing does.

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lft::report::{Request, compile};
use lft::results::{Row, Run, RunInfo, Status, Value};

const RUNS: usize = 200;
const REPEATS: usize = 5;

/// Tells the bench the times. It stands before the policy that forbids to tell.
const TELL: &str = r#"<head><script>
const now = () => performance.now();
const painted = new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(now()))));
const drawn = (states) => new Promise((done) => {
  const wait = setInterval(() => {
    if (!states.includes(document.documentElement.dataset.drawn)) return;
    clearInterval(wait);
    done(now());
  }, 5);
});
const all = drawn(["near", "all"]).then((near) => drawRest().then(() => [near, now()]));
Promise.all([painted, all]).then((times) => fetch("/told/" + times.flat().map(Math.round).join("/")));
</script>"#;

/// What the times that the page tells are of.
const MOMENTS: [&str; 3] = ["first shown", "first charts drawn", "all charts drawn"];

fn main() {
    let root = tempfile::tempdir().unwrap();
    for at in 0..RUNS {
        make_run(root.path(), at);
    }
    let page = root.path().join("report.html");
    let mut seconds = Vec::new();
    let mut bytes = 0;
    for _ in 0..REPEATS {
        let began = Instant::now();
        let summary = black_box(compile(root.path(), Request::default(), &page).unwrap());
        seconds.push(began.elapsed().as_secs_f64());
        bytes = summary.bytes;
        assert_eq!(summary.runs, RUNS);
    }
    println!("report over {RUNS} runs: {:.2} MiB", bytes as f64 / (1 << 20) as f64);
    println!("made in {}", spread(seconds, "s"));
    let opened: Vec<[f64; 3]> = (0..REPEATS).filter_map(|_| open(&page)).collect();
    if opened.is_empty() {
        println!("not opened: no chromium");
        return;
    }
    for (at, moment) in MOMENTS.into_iter().enumerate() {
        println!("{moment} after {}", spread(opened.iter().map(|times| times[at] / 1e3).collect(), "s"));
    }
}

/// `0.812 s (0.790 to 0.853 s)`: median, lowest and highest.
fn spread(mut values: Vec<f64>, unit: &str) -> String {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[0], values[values.len() - 1]);
    format!("{:.3} {unit} ({low:.3} to {high:.3} {unit})", values[values.len() / 2])
}

fn make_run(root: &Path, at: usize) {
    let options = serde_json::json!({"lr": 1e-3 * (1.0 + at as f64 / 50.0), "steps": 600});
    let info = RunInfo {
        name: format!("sweep_{at:03}"),
        options: options.as_object().cloned().unwrap_or_default(),
        seed: Some(0),
        script: Some("sweep.lua".into()),
        script_text: Some("-- a script\n".repeat(100)),
        ..RunInfo::default()
    };
    let mut run = Run::create(root, info).unwrap();
    let row =
        |cells: &[(&str, Value)]| -> Row { cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect() };
    for (m, method) in ["fm", "fw", "hybrid", "regression"].into_iter().enumerate() {
        for (s, solver) in ["euler", "midpoint", "rk4", "tsit5", "dopri5"].into_iter().enumerate() {
            for k in [1i64, 3, 8] {
                let kl = 0.2 + 0.1 * m as f64 + 0.3 / (k as f64 + s as f64) + 1e-4 * at as f64;
                run.log(row(&[
                    ("method", method.into()),
                    ("block", "{6,12}".into()),
                    ("solver", solver.into()),
                    ("k", k.into()),
                    ("nfe", (k * (1 + s as i64)).into()),
                    ("tokens", 2048i64.into()),
                    ("layers_removed", 5i64.into()),
                    ("params_removed", 842_880i64.into()),
                    ("kl", kl.into()),
                    ("nmse", (0.2 * kl).into()),
                    ("ppl", (33.9 * kl.exp()).into()),
                ]))
                .unwrap();
            }
        }
        for step in 0..200i64 {
            let loss = (0.3 + m as f64)
                * (0.01 + 1.0 / (1.0 + step as f64))
                * (1.0 + 0.1 * ((step * 37 % 11) as f64));
            let cells = [
                ("method", method.into()),
                ("block", "{6,12}".into()),
                ("step", (3 * step).into()),
                ("loss", loss.into()),
                ("lr", 1e-3.into()),
                ("grad_norm", 1.0.into()),
            ];
            run.log_training(row(&cells)).unwrap();
        }
    }
    for layers in 1..=6i64 {
        let kl = 0.09 * (layers * layers) as f64;
        run.log(row(&[
            ("method", "skip".into()),
            ("block", "{6,12}".into()),
            ("label", format!("skip-{layers} best").into()),
            ("layers_removed", layers.into()),
            ("params_removed", (198_272 * layers).into()),
            ("kl", kl.into()),
            ("ppl", (33.9 * kl.exp()).into()),
        ]))
        .unwrap();
    }
    run.finish(Status::Finished).unwrap();
}

/// Milliseconds until each of [`MOMENTS`]; `None` without a browser.
fn open(page: &Path) -> Option<[f64; 3]> {
    let html =
        fs::read_to_string(page).unwrap().replacen("<head>", TELL, 1).replace("default-src 'none'; ", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--window-size=1280,900",
        ])
        .arg("--remote-debugging-port=0")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(address)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let told = listener.incoming().flatten().find_map(|stream| answer(stream, &html));
    browser.kill().unwrap();
    browser.wait().unwrap();
    told
}

/// Serves the page, or takes what it tells.
fn answer(mut stream: TcpStream, html: &str) -> Option<[f64; 3]> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 8192];
    let count = stream.read(&mut buffer).unwrap_or(0);
    // A browser opens connections to be ready. An answer that nobody asked for would be taken for that to its next question.
    if count == 0 {
        return None;
    }
    let request = String::from_utf8_lossy(&buffer[..count]);
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    if let Some(times) = path.strip_prefix("/told/") {
        let times: Vec<f64> = times.split('/').filter_map(|time| time.parse().ok()).collect();
        return times.try_into().ok();
    }
    let body = if path == "/" { html } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A browser that has closed the connection asks again.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    None
}
