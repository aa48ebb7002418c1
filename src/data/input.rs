//! Documents out of files: plain text and JSON lines, as they are or compressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use memchr::memmem;

/// Bytes read from a file at a time.
const CHUNK: usize = 1 << 20;

/// The documents of one file, one after the other.
pub type Documents = Box<dyn Iterator<Item = Result<String>> + Send>;

/// How text is cut into documents.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// Stands between two documents of a text file.
    pub separator: String,
    /// The field of a JSON line, or the column of a table, that holds the text.
    pub field: String,
}

/// What a file holds, by its name without the ending of a compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text; documents are separated by a marker.
    Text,
    /// One JSON object a line.
    JsonLines,
    /// A table of columns; [`open`] does not read it.
    Parquet,
}

/// How a file is compressed, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

/// The format of a file by its name: `.jsonl`, `.ndjson` and `.json` are JSON lines, `.parquet` a table, all else
/// is text.
pub fn format_of(path: &Path) -> Format {
    match split(path).1.as_str() {
        "jsonl" | "ndjson" | "json" => Format::JsonLines,
        "parquet" => Format::Parquet,
        _ => Format::Text,
    }
}

/// Compression and the ending in front of it, in lower case.
fn split(path: &Path) -> (Compression, String) {
    let ending = |path: &Path| path.extension().map_or(String::new(), |e| e.to_string_lossy().to_lowercase());
    let compression = match ending(path).as_str() {
        "gz" => Compression::Gzip,
        "zst" | "zstd" => Compression::Zstd,
        "xz" => Compression::Xz,
        other => return (Compression::None, other.to_owned()),
    };
    (compression, ending(Path::new(path.file_stem().unwrap_or_default())))
}

/// Opens a file of text or JSON lines. `read` is told the bytes of the file as they are read.
///
/// # Errors
/// A file that is missing, of another format, damaged or not UTF-8; the documents report what comes later.
pub fn open(path: &Path, cut: &Cut, read: Arc<AtomicU64>) -> Result<Documents> {
    let source = unpacked(path, read)?;
    let path = path.to_owned();
    Ok(match format_of(&path) {
        Format::Text => Box::new(Pieces {
            source,
            path,
            separator: cut.separator.clone().into_bytes(),
            buffer: Vec::new(),
            offset: 0,
            ended: false,
        }),
        Format::JsonLines => Box::new(lines(source, path, cut.field.clone())),
        Format::Parquet => bail!("{} is a table, not text", path.display()),
    })
}

/// The bytes of a file, decompressed as its name says. `read` is told the bytes of the file itself.
///
/// # Errors
/// A file that is missing or of another compression than its name says.
pub fn unpacked(path: &Path, read: Arc<AtomicU64>) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let counted = BufReader::with_capacity(CHUNK, Counted { file, read });
    let (compression, _) = split(path);
    Ok(match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Compression::Zstd => Box::new(
            zstd::stream::read::Decoder::with_buffer(counted)
                .with_context(|| format!("cannot read {}", path.display()))?,
        ),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(counted)),
    })
}

/// A file that tells how far it was read.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The pieces of a text between separators.
struct Pieces {
    source: Box<dyn Read + Send>,
    path: PathBuf,
    separator: Vec<u8>,
    buffer: Vec<u8>,
    /// Where in the text the buffer starts.
    offset: u64,
    ended: bool,
}

impl Pieces {
    /// The next piece, or None behind the last.
    fn piece(&mut self) -> Result<Option<String>> {
        let mut searched = 0;
        loop {
            let finder = memmem::Finder::new(&self.separator);
            if let Some(at) = finder.find(&self.buffer[searched..]).map(|at| at + searched) {
                let rest = self.buffer.split_off(at + self.separator.len());
                let mut piece = std::mem::replace(&mut self.buffer, rest);
                piece.truncate(at);
                return self.text(piece, at + self.separator.len()).map(Some);
            }
            if self.ended {
                let piece = std::mem::take(&mut self.buffer);
                let length = piece.len();
                return if piece.is_empty() { Ok(None) } else { self.text(piece, length).map(Some) };
            }
            // A separator may begin in the last bytes that were searched.
            searched = (self.buffer.len() + 1).saturating_sub(self.separator.len());
            let before = self.buffer.len();
            let taken = Read::by_ref(&mut self.source).take(CHUNK as u64).read_to_end(&mut self.buffer);
            taken.with_context(|| format!("{}: damaged after {} bytes", self.path.display(), self.offset))?;
            self.ended = self.buffer.len() == before;
        }
    }

    fn text(&mut self, piece: Vec<u8>, length: usize) -> Result<String> {
        let start = self.offset;
        self.offset += length as u64;
        String::from_utf8(piece).map_err(|error| {
            let at = start + error.utf8_error().valid_up_to() as u64;
            anyhow!("{} is not UTF-8 text: byte {at} cannot be decoded", self.path.display())
        })
    }
}

impl Iterator for Pieces {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.piece().transpose()
    }
}

/// The texts of JSON lines; empty lines are skipped.
fn lines(source: Box<dyn Read + Send>, path: PathBuf, field: String) -> impl Iterator<Item = Result<String>> {
    let source = BufReader::with_capacity(CHUNK, source);
    source.lines().enumerate().filter_map(move |(at, line)| {
        let text = line.map_err(anyhow::Error::new).and_then(|line| {
            if line.trim().is_empty() {
                return Ok(None);
            }
            let mut object: serde_json::Map<_, _> = serde_json::from_str(&line)?;
            match object.remove(&field) {
                Some(serde_json::Value::String(text)) => Ok(Some(text)),
                Some(other) => bail!("the field `{field}` is no text but {other}"),
                None => {
                    let names: Vec<_> = object.keys().map(String::as_str).collect();
                    bail!("there is no field `{field}`; the line has {}", names.join(", "))
                }
            }
        });
        text.with_context(|| format!("{}, line {}", path.display(), at + 1)).transpose()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn cut() -> Cut {
        Cut { separator: "<|endoftext|>".to_owned(), field: "text".to_owned() }
    }

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let documents = open(&path, &cut(), count.clone())?.collect::<Result<Vec<_>>>()?;
        assert_eq!(count.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(documents)
    }

    fn refusal(name: &str, bytes: &[u8]) -> String {
        format!("{:#}", read(name, bytes).unwrap_err())
    }

    #[test]
    fn every_compression_gives_the_same_documents() {
        let long = "é".repeat(CHUNK);
        let text = format!("one\n<|endoftext|>\n{long}<|endoftext|>last");
        let expected = ["one\n".to_owned(), format!("\n{long}"), "last".to_owned()];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text.as_bytes()).unwrap();
        for (name, bytes) in [
            ("a.txt", text.clone().into_bytes()),
            ("a.txt.gz", gzip.finish().unwrap()),
            ("a.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
            ("a.txt.xz", xz.finish().unwrap()),
        ] {
            assert_eq!(read(name, &bytes).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn separators_on_the_edge_of_a_chunk_are_found() {
        for before in CHUNK - 14..CHUNK + 2 {
            let text = format!("{}<|endoftext|>b", "a".repeat(before));
            let lengths: Vec<usize> = read("a", text.as_bytes()).unwrap().iter().map(String::len).collect();
            assert_eq!(lengths, [before, 1]);
        }
    }

    #[test]
    fn json_lines_give_their_field() {
        let text = "{\"text\": \"one\", \"id\": 1}\n\n{\"text\": \"two\\n\"}\n";
        assert_eq!(read("a.jsonl", text.as_bytes()).unwrap(), ["one", "two\n"]);
        let message = refusal("a.jsonl", b"{\"text\": \"one\"}\n{\"body\": \"two\"}");
        assert!(
            message.contains("a.jsonl, line 2: there is no field `text`; the line has body"),
            "{message}"
        );
        assert!(refusal("a.jsonl", b"{\"text\": 5}").contains("line 1: the field `text` is no text but 5"));
        assert!(refusal("a.jsonl", b"nonsense").contains("line 1"));
    }

    #[test]
    fn damage_is_named() {
        assert!(refusal("a.txt", b"good<|endoftext|>ab\xff").contains("byte 19 cannot be decoded"));
        let mut whole = zstd::encode_all("text ".repeat(1000).as_bytes(), 1).unwrap();
        whole.truncate(whole.len() / 2);
        assert!(refusal("a.zst", &whole).contains("a.zst: damaged"));
        let missing = open(Path::new("/no/such.txt"), &cut(), Arc::default()).err().unwrap();
        assert!(missing.to_string().contains("/no/such.txt"));
    }

    #[test]
    fn formats_follow_the_name() {
        for (name, format) in [
            ("a.JSONL.gz", Format::JsonLines),
            ("a.parquet", Format::Parquet),
            ("a.txt.zst", Format::Text),
            ("a.xz", Format::Text),
            ("corpus", Format::Text),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }
}
