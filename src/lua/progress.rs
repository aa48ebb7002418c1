//! Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlua::Lua;

use super::catalogue::{Class, Entry};
use super::register::{Registry, userdata};
use super::state::State;
use crate::console;

/// Time between two lines where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work in known steps. Says nothing under `--quiet`.
pub struct Meter {
    bar: ProgressBar,
    /// What is counted, and how many of it one step does.
    unit: (&'static str, u64),
    begun: Instant,
    quiet: bool,
    state: Mutex<Shown>,
}

struct Shown {
    text: String,
    /// When the bar appears, or the next line is due.
    due: Instant,
}

impl Meter {
    /// A meter that shows itself when the work has lasted `patience`.
    ///
    /// # Errors
    /// When `lua` has no host.
    pub fn new(
        lua: &Lua,
        total: u64,
        label: &str,
        unit: (&'static str, u64),
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let quiet = State::of(lua)?.quiet;
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len}  {wide_msg}")?);
        bar.set_prefix(label.to_owned());
        let begun = Instant::now();
        let meter = Self {
            bar,
            unit,
            begun,
            quiet,
            state: Mutex::new(Shown { text: String::new(), due: begun + patience }),
        };
        if patience.is_zero() {
            meter.show();
        }
        Ok(meter)
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

    /// `5,120 tokens/s  00:01:20 left`, from the mean rate so far.
    fn pace(&self, position: u64) -> String {
        let total = self.bar.length().unwrap_or(position);
        let elapsed = self.begun.elapsed();
        let rate = position as f64 / elapsed.as_secs_f64().max(1e-9);
        let left = Duration::try_from_secs_f64(total.saturating_sub(position) as f64 / rate.max(1e-9));
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

fn terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// A progress bar in a script's hands.
struct Progress(Meter);
userdata!(Progress);

/// Registers `lft.progress`.
///
/// # Errors
/// When Lua is out of memory.
pub fn register(registry: &mut Registry) -> mlua::Result<()> {
    registry.function(
        Entry {
            name: "lft.progress",
            about: "Starts a progress bar on standard error, with rate and remaining time; a line every ten seconds \
                    where that is no terminal. Nothing is drawn under --quiet.",
            params: &[("total", "integer", "number of steps"), ("label?", "string", "text in front of the bar")],
            returns: &[("Progress", "the bar")],
            example: "local bar = lft.progress(10, \"training\")\nfor _ = 1, 10 do bar:step() end\nbar:finish()",
        },
        |lua, (total, label): (u64, Option<String>)| {
            Ok(Progress(Meter::new(lua, total, &label.unwrap_or_default(), ("steps", 1), Duration::ZERO)?))
        },
    )?;
    let about = "A progress bar on standard error.";
    registry.class(Class { name: "Progress", about, fields: &[] }, |class| {
        class.method(
            Entry {
                name: "Progress:step",
                about: "Moves the bar forward.",
                params: &[
                    ("count?", "integer", "steps done since the last call, 1 when left out"),
                    ("text?", "string", "replaces the text behind the bar"),
                ],
                returns: &[("nil", "nothing")],
                example: "local bar = lft.progress(3)\nbar:step(2, \"loss 0.1\")",
            },
            |_, bar: &Progress, (count, text): (Option<u64>, Option<String>)| {
                bar.0.step(count.unwrap_or(1), text);
                Ok(())
            },
        );
        class.method(
            Entry {
                name: "Progress:finish",
                about: "Removes the bar.",
                params: &[],
                returns: &[("nil", "nothing")],
                example: "lft.progress(1):finish()",
            },
            |_, bar: &Progress, ()| {
                bar.0.finish();
                Ok(())
            },
        );
    })
}
