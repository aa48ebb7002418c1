//! Rows on their way into a file, a batch at a time.

use std::io::Write;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use polars::prelude::{DataFrame, Engine, LazyFrame, PlanCallback, PolarsError, PolarsResult, Schema};

use super::frame::Frame;
use super::parquet;

/// Batches that wait to be written.
const WAITING: usize = 2;

/// The forms that rows can be streamed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// See [`Frame::to_csv`].
    Csv,
    /// See [`Frame::to_json`].
    Json,
    Parquet,
}

/// Writes the rows of a plan and returns how many there were. At most a few batches are in memory at a time, unless
/// the plan itself needs more, as sorting does.
///
/// # Errors
/// When the plan fails, mostly before anything is written, or the writer does; what was written then is to be
/// thrown away.
pub(super) fn encode(mut rows: LazyFrame, encoding: Encoding, writer: &mut dyn Write) -> Result<usize> {
    let schema = rows.collect_schema()?;
    let mut batches = batches(rows)?.peekable();
    // Most failures show at once, and then nothing has been written yet.
    if let Some(Err(error)) = batches.next_if(Result::is_err) {
        return Err(error.into());
    }
    match encoding {
        Encoding::Csv => csv(&schema, batches, writer),
        Encoding::Json => json(batches, writer),
        Encoding::Parquet => parquet(&schema, batches, writer),
    }
}

/// The rows in order, while Polars looks for the next ones on a thread of its own. An error is the last item.
fn batches(rows: LazyFrame) -> PolarsResult<Batches> {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    // When nobody takes the rows any more, Polars is told to stop.
    let hand_over = PlanCallback::new(move |batch| Ok(sender.send(batch).is_err()));
    let plan = rows.sink_batches(hand_over, true, None)?;
    let worker = thread::spawn(move || plan.collect_with_engine(Engine::Streaming).map(|_| ()));
    Ok(Batches { receiver, worker: Some(worker) })
}

struct Batches {
    receiver: Receiver<DataFrame>,
    worker: Option<JoinHandle<PolarsResult<()>>>,
}

impl Iterator for Batches {
    type Item = PolarsResult<DataFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.receiver.recv() {
            return Some(Ok(batch));
        }
        // The end of the rows is their end only when the search for them ended well.
        match self.worker.take()?.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => Some(Err(PolarsError::ComputeError("the engine gave up on it".into()))),
        }
    }
}

fn csv(
    schema: &Schema,
    batches: impl Iterator<Item = PolarsResult<DataFrame>>,
    writer: &mut dyn Write,
) -> Result<usize> {
    writer.write_all(Frame::new(DataFrame::empty_with_schema(schema)).to_csv().as_bytes())?;
    let mut count = 0;
    for batch in batches {
        let frame = Frame::new(batch?);
        count += frame.height();
        frame.csv_rows().try_for_each(|line| writer.write_all(line.as_bytes()))?;
    }
    Ok(count)
}

fn json(batches: impl Iterator<Item = PolarsResult<DataFrame>>, writer: &mut dyn Write) -> Result<usize> {
    let mut count = 0;
    for batch in batches {
        let frame = Frame::new(batch?);
        for object in frame.json_rows() {
            writer.write_all(if count == 0 { b"[\n" } else { b",\n" })?;
            write!(writer, "  {object}")?;
            count += 1;
        }
    }
    writer.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })?;
    Ok(count)
}

fn parquet(
    schema: &Schema,
    batches: impl Iterator<Item = PolarsResult<DataFrame>>,
    writer: &mut dyn Write,
) -> Result<usize> {
    let mut writer = parquet::writer(writer).batched(schema)?;
    let mut count = 0;
    for batch in batches {
        let batch = batch?;
        count += batch.height();
        writer.write_batch(&batch)?;
    }
    writer.finish()?;
    Ok(count)
}
