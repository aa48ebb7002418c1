//! Headless Chromium without network, for tests of pages.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A page that a browser has opened.
pub struct Opened {
    /// Its document after its scripts ran.
    pub dom: String,
}

/// The browser's name; `None`, and a line that says so, where there is none.
pub fn browser() -> Option<&'static str> {
    let runs = |name: &&str| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = NAMES.into_iter().find(runs);
    if found.is_none() {
        println!("skipped: no chromium");
    }
    found
}

/// The address of a file.
pub fn file(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Opens an address. Names of other machines lead nowhere; `seconds` of the page's own time pass, which runs ahead
/// of the clock wherever the page only waits.
pub fn opened(browser: &str, address: &str, seconds: u32) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let dom = folder.path().join("dom.html");
    let budget = format!("--virtual-time-budget={}", seconds * 1000);
    run(
        browser,
        folder.path(),
        &["--window-size=1280,900", &budget, "--dump-dom", address],
        File::create(&dom).unwrap(),
    );
    Opened { dom: fs::read_to_string(dom).unwrap() }
}

/// Takes a picture of `width` × `height` pixels of a page.
pub fn screenshot(browser: &str, address: &str, (width, height): (u32, u32), dark: bool, picture: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let size = format!("--window-size={width},{height}");
    let picture = format!("--screenshot={}", picture.display());
    let scheme = format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 });
    let arguments = [&size, &scheme, &picture, "--hide-scrollbars", "--virtual-time-budget=20000", address];
    run(browser, folder.path(), &arguments, File::create(folder.path().join("none")).unwrap());
}

/// Prints a page; returns the PDF and what its scripts wrote to the console, errors among it.
pub fn printed(browser: &str, address: &str) -> (Vec<u8>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (pdf, log) = (folder.path().join("page.pdf"), folder.path().join("log"));
    let to = format!("--print-to-pdf={}", pdf.display());
    let log_file = format!("--log-file={}", log.display());
    let arguments = ["--enable-logging", &log_file, &to, "--virtual-time-budget=20000", address];
    run(browser, folder.path(), &arguments, File::create(folder.path().join("none")).unwrap());
    let logged = fs::read_to_string(log).unwrap_or_default();
    let console = logged.lines().filter(|line| line.contains(":CONSOLE")).map(String::from).collect();
    (fs::read(pdf).unwrap_or_default(), console)
}

fn run(browser: &str, profile: &Path, arguments: &[&str], output: File) {
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.join("profile").display()))
        .args(arguments)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            panic!("{browser} did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Opened {
    /// The start tag of the root element, which carries what the page says about itself.
    pub fn root(&self) -> &str {
        let tag = self.dom.find("<html").map(|at| &self.dom[at..]).unwrap_or_default();
        &tag[..tag.find('>').unwrap_or(0)]
    }

    /// Panics unless exactly these charts were drawn and no script failed.
    pub fn assert_drawn(&self, charts: &[&str]) {
        let root = self.root();
        assert!(root.contains(&format!("data-charts=\"{}\"", charts.len())), "all charts are drawn: {root}");
        assert!(!root.contains("data-error"), "{root}");
        for id in charts {
            let start = self.dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("{id} is missing"));
            let figure = &self.dom[start..start + self.dom[start..].find("</figure>").unwrap()];
            assert!(figure.contains("main-svg") || figure.contains("parcoords"), "{id} holds a drawing");
        }
    }

    /// Panics unless the root element says this of itself.
    pub fn assert_says(&self, name: &str, value: &str) {
        let said = format!("data-{name}=\"{}\"", value.replace('<', "&lt;"));
        assert!(self.root().contains(&said), "{said} in {}", self.root());
    }
}
