//! `lft report`, `lft watch` and `lft run --watch` end to end: what goes on a page, and who may read it.

mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lft::results::{Run, RunInfo, Value};
use program::{lft, output};

const NAME: &str = "<script>alert(1)</script>\u{1b}[31m../../x";

/// A run that goes on, with one row and ten points of a curve.
fn running(root: &Path) -> Run {
    let mut run = Run::create(root, RunInfo { name: NAME.into(), ..RunInfo::default() }).unwrap();
    let row = |cells: &[(&str, Value)]| cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
    run.log(row(&[("method", NAME.into()), ("k", 1i64.into()), ("kl", 0.4321.into())])).unwrap();
    for step in 1..=10i64 {
        run.log_training(row(&[("step", step.into()), ("loss", (1.0 / step as f64).into())])).unwrap();
    }
    run.flush().unwrap();
    run
}

/// The program while it serves.
struct Serving {
    child: Child,
    port: u16,
}

impl Serving {
    /// Waits for the address, which stands at the end of a line.
    fn start(mut child: Child, from: impl Read) -> Self {
        let mut lines = BufReader::new(from).lines();
        let address = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            line.split("http://127.0.0.1:").nth(1).map(|rest| rest.trim_end_matches('/').parse().unwrap())
        });
        let Some(port) = address else {
            child.kill().unwrap();
            panic!("no address was printed");
        };
        Self { child, port }
    }

    /// Status and body of an answer to a request with these headers.
    fn ask(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let host = if headers.contains("Host:") {
            String::new()
        } else {
            format!("Host: 127.0.0.1:{}\r\n", self.port)
        };
        write!(stream, "GET {path} HTTP/1.1\r\n{host}{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn only_pages_of_the_server_itself_are_answered() {
    let root = tempfile::tempdir().unwrap();
    let _run = running(root.path());
    let mut command = lft(root.path());
    let mut child = command.args(["watch", "--port", "0", "--quiet"]).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let server = Serving::start(child, stdout);

    let (status, page) = server.ask("/", "");
    assert_eq!(status, 200);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert(1)"));
    assert!(
        page.contains("connect-src 'self'")
            && page.contains("frame-ancestors 'none'")
            && page.contains("0.4321")
    );
    let (status, state) = server.ask("/state", "Sec-Fetch-Site: same-origin\r\n");
    assert!(
        status == 200 && state.contains("\"status\":\"running\"") && state.contains("/running/1/10\""),
        "{state}"
    );
    let (_, update) = server.ask("/update", "");
    assert!(
        update.contains("data-chart=\"training-0\"") && !update.contains("plotly.js v"),
        "no library in an update"
    );

    let own = format!("Host: localhost:{}\r\n", server.port);
    assert_eq!(server.ask("/", &own).0, 200);
    for headers in [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{}\r\n", server.port),
        format!("{own}Origin: https://evil.example\r\n"),
        format!("{own}Sec-Fetch-Site: cross-site\r\n"),
    ] {
        for path in ["/", "/state", "/update"] {
            let (status, answer) = server.ask(path, &headers);
            assert!(status == 403 && !answer.contains("0.4321"), "{path} with {headers}");
        }
    }
    assert_eq!(server.ask("/../../../etc/passwd", "").0, 404);
    assert_eq!(server.ask("/run.json", "").0, 404);
}

#[test]
fn a_report_takes_patterns_text_and_a_template() {
    let root = tempfile::tempdir().unwrap();
    let mut run = running(root.path());
    run.finish(lft::results::Status::Finished).unwrap();
    let file = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let notes = file("notes.md", "# Why\n\n<img src=x onerror=alert(2)> to *see*");
    let template = file(
        "own.html",
        "{% extends \"report.html\" %}{% block made %}<p>by {{ runs[0].name }}</p>{% endblock %}",
    );
    let page = root.path().join("pages/report.html");
    let asked = ["report", "--runs", "<script>*", "--text", &notes, "--template", &template, "--output"];
    let asked: Vec<&str> = asked.into_iter().chain(page.to_str()).collect();
    let (code, stdout, stderr) = output(&mut lft(root.path()), &asked);
    assert!(code == 0 && stdout.contains("(1 run, "), "{stdout}{stderr}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<h2>Why</h2>")
            && html.contains("<em>see</em>")
            && html.contains("<p>by &lt;script&gt;")
    );
    assert!(
        !html.contains("<img") && !html.contains("<script>alert") && !html.contains("How it was made</h2>")
    );

    for (arguments, message) in [
        (["--runs", "x*"], "error: no run fits the pattern `x*`"),
        (["--text", "/no/such.md"], "error: cannot read /no/such.md"),
        (["--template", &file("bad.html", "\n{{ nothing")], "error: cannot fill the template line 2: "),
    ] {
        let (code, _, stderr) = output(lft(root.path()).current_dir(root.path()).arg("report"), &arguments);
        assert!(code == 1 && stderr.starts_with(message), "{stderr}");
    }
    // Neither the run's name nor anything else led out of the folder.
    let beside: Vec<_> =
        fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(beside.len(), 5, "{beside:?}");
}

#[test]
fn the_terminal_view_draws_and_is_not_steered() {
    let root = tempfile::tempdir().unwrap();
    let _run = running(root.path());
    let (code, stdout, stderr) = output(&mut lft(root.path()), &["watch", "--once"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("running for") && stdout.contains('█') && stdout.contains("0.4321"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
    let (code, _, stderr) = output(&mut lft(root.path()), &["watch", "nothing like it"]);
    assert!(code == 1 && stderr.starts_with("error: no run is called `nothing like it`"), "{stderr}");
    let empty = tempfile::tempdir().unwrap();
    let (code, _, stderr) = output(&mut lft(empty.path()), &["watch"]);
    assert!(code == 1 && stderr.contains("`lft run SCRIPT` makes one"), "{stderr}");
}

#[test]
fn a_script_is_watched_from_its_own_process() {
    let root = tempfile::tempdir().unwrap();
    let (script, go) = (root.path().join("a.lua"), root.path().join("go"));
    let waits = format!(
        "local lft = require('lft')\nlocal run = lft.run{{name = 'watched'}}\nrun:log{{kl = 0.25}}\n\
         lft.query('SELECT run FROM runs')\nwhile not io.open({:?}) do end\nrun:log{{kl = 0.125}}\n",
        go.to_str().unwrap()
    );
    fs::write(&script, waits).unwrap();
    let mut command = lft(&root.path().join("runs"));
    let mut child = command.arg("run").arg(&script).arg("--watch").stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut server = Serving::start(child, stderr);
    let began = Instant::now();
    while !server.ask("/state", "").1.contains("/running/1/0") {
        assert!(began.elapsed() < Duration::from_secs(60), "the row was never seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::write(&go, "").unwrap();
    // The program stays until the page that asked has seen the end.
    let page = loop {
        let (_, page) = server.ask("/update", "");
        if page.contains("0.1250") && page.contains("finished") {
            break page;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the end was never seen");
    };
    assert!(page.contains("watched"));
    assert!(server.child.wait().unwrap().success());
}
