//! What a request must look like to be answered.
//!
//! The page shows names, scripts and results of this machine, so no other site may read it. A browser names the host
//! that a page was opened under and the site that asks; both must be the server's own. That also holds against names
//! that were made to point here (DNS rebinding).

use std::io::Read;

use httparse::{EMPTY_HEADER, Request, Status};

/// Bytes of a request's head at most.
const LONGEST: usize = 16 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The whole page.
    Page,
    /// How the run stands, as JSON.
    State,
    /// What is new, for a page that is open.
    Update,
}

/// Why a request is refused: status and reason.
pub type Refusal = (u16, &'static str);

/// A request that may be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub wanted: Wanted,
    /// Whether only the head of the answer is asked for.
    pub head_only: bool,
}

/// Reads one request from `stream` and judges it; `port` is the server's own.
pub fn read(stream: &mut impl Read, port: u16) -> Result<Asked, Refusal> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let count = stream.read(&mut buffer).map_err(|_| (408, "the request did not arrive"))?;
        if count == 0 {
            return Err((400, "the request ended early"));
        }
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(judged) = parse(&bytes, port) {
            return judged;
        }
        if bytes.len() > LONGEST {
            return Err((431, "the request is too long"));
        }
    }
}

/// `None` while the head is not complete.
fn parse(bytes: &[u8], port: u16) -> Option<Result<Asked, Refusal>> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => Some(judge(&request, port)),
        Ok(Status::Partial) => None,
        Err(_) => Some(Err((400, "this is no HTTP request"))),
    }
}

fn judge(request: &Request, port: u16) -> Result<Asked, Refusal> {
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let hosts: Vec<&[u8]> = values(request, "host");
    if hosts.len() != 1 || !own.iter().any(|own| hosts[0].eq_ignore_ascii_case(own.as_bytes())) {
        return Err((403, "this server answers only under its own address"));
    }
    let origin = |value: &[u8]| own.iter().any(|own| value == format!("http://{own}").as_bytes());
    let site = |value: &[u8]| [b"same-origin".as_slice(), b"none"].contains(&value);
    if !values(request, "origin").iter().all(|value| origin(value))
        || !values(request, "sec-fetch-site").iter().all(|value| site(value))
    {
        return Err((403, "another site may not read this page"));
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err((405, "only GET and HEAD are answered")),
    };
    let wanted = match request.path {
        Some("/") => Wanted::Page,
        Some("/state") => Wanted::State,
        Some("/update") => Wanted::Update,
        _ => return Err((404, "there is no such page")),
    };
    Ok(Asked { wanted, head_only })
}

fn values<'a>(request: &Request<'_, 'a>, name: &str) -> Vec<&'a [u8]> {
    let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(head: &str) -> Result<Asked, u16> {
        let text = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        read(&mut text.as_bytes(), 7411).map_err(|(status, _)| status)
    }

    #[test]
    fn own_pages_are_answered() {
        let page = Asked { wanted: Wanted::Page, head_only: false };
        assert_eq!(asked("GET / HTTP/1.1\nHost: 127.0.0.1:7411"), Ok(page));
        let own = "GET /state HTTP/1.1\nHost: LOCALHOST:7411\nOrigin: http://localhost:7411\nSec-Fetch-Site: same-origin";
        assert_eq!(asked(own).unwrap().wanted, Wanted::State);
        assert!(
            asked("HEAD /update HTTP/1.1\nHost: localhost:7411\nSec-Fetch-Site: none").unwrap().head_only
        );
    }

    #[test]
    fn others_are_refused() {
        for (head, status) in [
            ("GET / HTTP/1.1\nHost: evil.example:7411", 403),
            ("GET / HTTP/1.1\nHost: 127.0.0.1", 403),
            ("GET / HTTP/1.1\nHost: 127.0.0.1:7411\nHost: evil.example", 403),
            ("GET / HTTP/1.1", 403),
            ("GET / HTTP/1.1\nHost: localhost:7411\nOrigin: https://evil.example", 403),
            ("GET / HTTP/1.1\nHost: localhost:7411\nOrigin: null", 403),
            ("GET /state HTTP/1.1\nHost: localhost:7411\nSec-Fetch-Site: cross-site", 403),
            ("GET /state HTTP/1.1\nHost: localhost:7411\nSec-Fetch-Site: same-site", 403),
            ("POST / HTTP/1.1\nHost: localhost:7411", 405),
            ("GET /../../etc/passwd HTTP/1.1\nHost: localhost:7411", 404),
            ("GET http://evil.example/ HTTP/1.1\nHost: localhost:7411", 404),
            ("nonsense", 400),
        ] {
            assert_eq!(asked(head), Err(status), "{head}");
        }
        assert_eq!(asked(&format!("GET / HTTP/1.1\nX: {}", "x".repeat(40_000))), Err(431));
        assert_eq!(read(&mut "GET / HT".as_bytes(), 1), Err((400, "the request ended early")));
    }

    proptest! {
        #[test]
        fn no_bytes_are_answered_without_our_name(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&mut bytes.as_slice(), 7411).is_err());
        }
    }
}
