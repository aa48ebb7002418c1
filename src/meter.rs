//! Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{
    FormattedDuration, HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use crate::console;

/// Time between two lines where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work in known steps. Says nothing under `--quiet`.
pub struct Meter {
    bar: ProgressBar,
    /// What is counted, and how many of it one step does.
    unit: (&'static str, u64),
    begun: Instant,
    /// Where the work stood when it began.
    from: u64,
    quiet: bool,
    state: Mutex<Shown>,
}

struct Shown {
    text: String,
    /// When the bar appears, or the next line is due.
    due: Instant,
}

impl Meter {
    /// A meter of `total` steps that shows itself when the work has lasted `patience`; never if it is to be `quiet`.
    ///
    /// # Errors
    /// None in practice: the template of the bar is fixed.
    pub fn new(
        quiet: bool,
        total: u64,
        label: &str,
        unit: (&'static str, u64),
        patience: Duration,
    ) -> Result<Self> {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len}  {wide_msg}")?);
        bar.set_prefix(label.to_owned());
        let begun = Instant::now();
        let meter = Self {
            bar,
            unit,
            begun,
            from: 0,
            quiet,
            state: Mutex::new(Shown { text: String::new(), due: begun + patience }),
        };
        if patience.is_zero() {
            meter.show();
        }
        Ok(meter)
    }

    /// The same for work of which `from` steps were done before.
    #[must_use]
    pub fn from(mut self, from: u64) -> Self {
        self.from = from;
        self
    }

    /// Work is now at `position`; `text` replaces what stands behind rate and remaining time.
    pub fn set(&self, position: u64, text: Option<String>) {
        if self.quiet {
            return;
        }
        self.bar.set_position(position);
        let mut shown = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(text) = text {
            shown.text = text;
        }
        let message = format!("{}  {}", self.pace(position), shown.text);
        let now = Instant::now();
        if now >= shown.due && terminal() {
            self.show();
        } else if now >= shown.due {
            shown.due = now + LINE_EVERY;
            let total = self.bar.length().unwrap_or(position);
            console::note(&format!("{}: {position}/{total}  {message}", self.bar.prefix()));
        }
        self.bar.set_message(message);
    }

    /// As [`Meter::set`], relative to where the work was.
    pub fn step(&self, count: u64, text: Option<String>) {
        self.set(self.bar.position() + count, text);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        if !self.quiet && terminal() && self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(500));
        }
    }

    /// `5,120 tokens/s  00:01:20 left`, from the mean rate so far; nothing before the first step.
    fn pace(&self, position: u64) -> String {
        let total = self.bar.length().unwrap_or(position);
        let elapsed = self.begun.elapsed();
        let rate = position.saturating_sub(self.from) as f64 / elapsed.as_secs_f64().max(1e-9);
        if rate == 0.0 {
            return String::new();
        }
        let left = Duration::try_from_secs_f64(total.saturating_sub(position) as f64 / rate);
        let (name, each) = self.unit;
        let per_second = rate * each as f64;
        let pace = match per_second >= 10.0 {
            true => HumanCount(per_second as u64).to_string(),
            false => format!("{per_second:.1}"),
        };
        let left = FormattedDuration(left.unwrap_or(Duration::MAX));
        format!("{pace} {name}/s  {left} left")
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Work whose end is not known. A terminal shows that it goes on, for how long, and what it has written; nothing is shown
/// elsewhere, nor under `--quiet`.
pub struct Spinner {
    bar: ProgressBar,
    /// Shows the bar when the work has lasted long enough, unless the sender is dropped before.
    shower: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    /// A spinner that shows itself when the work has lasted `patience`.
    ///
    /// # Errors
    /// None in practice: the template of the bar is fixed.
    pub fn new(quiet: bool, label: &str, patience: Duration) -> Result<Self> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{spinner} {prefix}  {elapsed}{written}")?;
        bar.set_style(style.with_key("written", |state: &ProgressState, line: &mut dyn std::fmt::Write| {
            let (bytes, rate) = (HumanBytes(state.pos()), HumanBytes(state.per_sec() as u64));
            if state.pos() > 0 {
                // A line that cannot be drawn has no reader.
                let _ = write!(line, "  {bytes} written, {rate}/s");
            }
        }));
        bar.set_prefix(label.to_owned());
        let show = move |bar: ProgressBar, stop: Receiver<()>| {
            if stop.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(Duration::from_millis(100));
            }
        };
        let shower = (!quiet && terminal()).then(|| {
            let (sender, stop) = mpsc::channel();
            let bar = bar.clone();
            (sender, thread::spawn(move || show(bar, stop)))
        });
        Ok(Self { bar, shower })
    }

    /// So many bytes more were written.
    pub fn wrote(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }

    /// Removes the spinner.
    pub fn finish(&mut self) {
        if let Some((sender, shower)) = self.shower.take() {
            drop(sender);
            // It ends at once, and has nothing to tell.
            let _ = shower.join();
        }
        self.bar.finish_and_clear();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.finish();
    }
}

fn terminal() -> bool {
    std::io::stderr().is_terminal()
}
