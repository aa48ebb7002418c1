//! The interactive session in a terminal, as somebody who types sees it.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A pseudo terminal with the program in it.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// Up to where the screen was read.
    read: usize,
}

impl Terminal {
    fn new(home: &std::path::Path) -> Self {
        let (mut near, mut far) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the two descriptors are written here and owned by nobody else.
        let (near, far) = unsafe {
            assert_eq!(libc::openpty(&mut near, &mut far, std::ptr::null_mut(), std::ptr::null(), &size), 0);
            (File::from_raw_fd(near), OwnedFd::from_raw_fd(far))
        };
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lft"));
        command.args(["--device", "cpu", "repl"]).env("HOME", home).env("TERM", "xterm").current_dir(home);
        command.stdin(far.try_clone().unwrap()).stdout(far.try_clone().unwrap()).stderr(far);
        // SAFETY: both calls may be made between fork and exec; they give the terminal to the program.
        let child = unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let child = child.spawn().unwrap();
        // The far end is held by the command too; reading ends when the program has gone.
        drop(command);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, shown) = (near.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap().push_str(&plain(&String::from_utf8_lossy(&bytes[..count])));
            }
        });
        Self { child, keyboard: near, screen, read: 0 }
    }

    fn keys(&mut self, keys: &str) -> &mut Self {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Waits for `text` to appear after what was read so far.
    fn sees(&mut self, text: &str) -> &mut Self {
        let begun = Instant::now();
        loop {
            let screen = self.screen.lock().unwrap().clone();
            if let Some(at) = screen[self.read..].find(text) {
                self.read += at + text.len();
                return self;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "no {text:?} in {:?}", &screen[self.read..]);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "still there: {:?}",
                self.screen.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A test that fails leaves nobody behind.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text without the sequences that move the cursor and choose colours.
fn plain(text: &str) -> String {
    let mut kept = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => {
                let _ = letters.find(|c| c.is_ascii_alphabetic());
            }
            _ => kept.push(letter),
        }
    }
    kept
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

#[test]
fn a_session_computes_completes_and_remembers() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new(home.path());
    terminal.sees("lft.help() lists what there is").sees("> ");
    terminal.keys("1 + 41\r").sees("\n42").sees("> ");
    // Tensors are shown with shape, element type, place and values.
    terminal.keys("t = lft.tensor({{1, 2}, {3, 4}})\r").sees("> ").keys("t\r");
    terminal.sees("Tensor (2, 2) f32 cpu").sees("[3., 4.]]").sees("> ");
    // Enter goes on for as long as the input is not whole.
    terminal.keys("for i = 1, 2 do\r").keys("print('line ' .. i)\r").keys("end\r");
    terminal.sees("line 1\r\n").sees("line 2\r\n").sees("> ");
    // Completion knows the class of a value.
    terminal.keys("t:index_s\t").sees("t:index_select").keys("\x15");
    terminal.keys("lft.zeros('x')\r").sees("stdin:1: lft.zeros: argument 1 (shape)").sees("> ");
    terminal.keys("print(lft.help(lft.ones({1})))\r").sees("Tensor:matmul").sees("> ");
    terminal.keys(CTRL_D);
    assert!(terminal.left().success());

    let mut terminal = Terminal::new(home.path());
    terminal.sees("> ").keys(UP).keys("\r").sees("Tensor:matmul").sees("> ");
    terminal.keys("os.exit()\r");
    assert!(terminal.left().success());
}

#[test]
fn ctrl_c_ends_the_call_and_not_the_session() {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new(home.path());
    terminal.sees("> ");
    terminal.keys("x = 7 print('be' .. 'gun') pcall(function() while true do end end)\r").sees("begun");
    terminal.keys(CTRL_C).sees("interrupted").sees("> ");
    // What was typed half is thrown away.
    terminal.keys("x = 8 +").keys(CTRL_C).sees("> ");
    terminal.keys("'x is ' .. x\r").sees("x is 7").sees("> ");
    terminal.keys(CTRL_D);
    assert!(terminal.left().success());
}
