//! A small HTTP server on 127.0.0.1 that serves the page of one run.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::request::{self, Wanted};
use super::watched::{Watched, version, words};
use crate::report::input::Report;
use crate::report::page::{Form, render};

/// The port that is tried first, so that an open page finds the next run again.
const PORT: u16 = 7411;

/// Connections served at once; more are dropped.
const CONNECTIONS: usize = 32;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Headers of every answer: nothing is kept, framed, guessed at or handed to another site.
const HEADERS: &str = "Cache-Control: no-store\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: frame-ancestors 'none'\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n";

/// A server that is bound to its port and answers from a thread of its own until the program ends.
#[derive(Debug)]
pub struct Server {
    port: u16,
    watched: Watched,
    seen: Arc<Mutex<Seen>>,
}

/// What pages have seen.
#[derive(Debug, Default)]
struct Seen {
    /// When a page last asked.
    asked: Option<Instant>,
    /// The version that was last given away in full.
    version: String,
}

impl Server {
    /// Binds to `port`, or without one to the usual or else any free port, and begins to answer.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(watched: Watched, port: Option<u16>) -> Result<Self> {
        let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match port {
            Some(port) => bind(port).with_context(|| format!("cannot serve on port {port} of 127.0.0.1"))?,
            None => bind(PORT).or_else(|_| bind(0)).context("cannot serve on 127.0.0.1")?,
        };
        let port = listener.local_addr().context("cannot tell which port is served")?.port();
        let server = Self { port, watched, seen: Arc::default() };
        let (watched, seen) = (server.watched.clone(), server.seen.clone());
        let answering = thread::Builder::new().name("watch".to_owned());
        answering
            .spawn(move || answer_all(&listener, port, &watched, &seen))
            .context("cannot start a thread for the server")?;
        Ok(server)
    }

    /// Where the page is.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Before the program ends: waits a few seconds for an open page to fetch what was written last.
    pub fn let_pages_catch_up(&self) {
        let began = Instant::now();
        let last = self.watched.record().ok().flatten().map(|record| version(&record)).unwrap_or_default();
        while began.elapsed() < PATIENCE {
            let seen = lock(&self.seen);
            let open = seen.asked.is_some_and(|asked| asked.elapsed() < PATIENCE);
            if !open || seen.version == last {
                return;
            }
            drop(seen);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn answer_all(listener: &TcpListener, port: u16, watched: &Watched, seen: &Arc<Mutex<Seen>>) {
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Too many open files, say: that passes.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if busy.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (watched, seen, served) = (watched.clone(), seen.clone(), busy.clone());
        let serving = thread::Builder::new().spawn(move || {
            // A browser that left is no matter.
            let _ = answer(stream, port, &watched, &seen);
            served.fetch_sub(1, Ordering::Relaxed);
        });
        if serving.is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(mut stream: TcpStream, port: u16, watched: &Watched, seen: &Mutex<Seen>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let asked = match request::read(&mut stream, port) {
        Ok(asked) => asked,
        Err((status, reason)) => return send(&mut stream, status, "text/plain", reason, false),
    };
    let (kind, content) = match asked.wanted {
        Wanted::State => ("application/json", state(watched, seen)),
        Wanted::Page => ("text/html", page(watched, Form::Live, seen)),
        Wanted::Update => ("text/html", page(watched, Form::Update, seen)),
    };
    match content {
        Ok(body) => send(&mut stream, 200, kind, &body, asked.head_only),
        Err(error) => send(&mut stream, 500, "text/plain", &format!("{error:#}"), asked.head_only),
    }
}

fn state(watched: &Watched, seen: &Mutex<Seen>) -> Result<String> {
    lock(seen).asked = Some(Instant::now());
    let state = match watched.record()? {
        Some(record) => {
            json!({"version": version(&record), "status": record.status.as_str(), "words": words(&record)})
        }
        None => json!({"version": "", "status": "waiting", "words": "waiting for a run to begin"}),
    };
    Ok(state.to_string())
}

fn page(watched: &Watched, form: Form, seen: &Mutex<Seen>) -> Result<String> {
    let Some(record) = watched.record()? else {
        return render(&Report { title: "Waiting for a run".into(), ..Report::default() }, None, form);
    };
    let html = render(&crate::report::read_run(&watched.root, &record.id)?, None, form)?;
    lock(seen).version = version(&record);
    Ok(html)
}

fn send(stream: &mut TcpStream, status: u16, kind: &str, body: &str, head_only: bool) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n{HEADERS}\r\n",
        reason(status),
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if !head_only {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
