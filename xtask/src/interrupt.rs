//! Ctrl-C, a closed terminal and a polite kill: children end first, then what was started is taken down.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

static ASKED: AtomicBool = AtomicBool::new(false);
/// The children, and whether each ends when the user asks to stop.
static GROUPS: Mutex<BTreeMap<i32, bool>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// How many `Cleaning` live in this thread.
    static CLEANING: Cell<usize> = const { Cell::new(0) };
}

/// Starts listening for signals. The second one ends children at once.
///
/// # Errors
/// The system refuses a thread or a handler.
pub fn watch() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let listen = move || {
        for _ in signals.forever() {
            if ASKED.swap(true, Ordering::SeqCst) {
                signal(Signal::KILL);
                continue;
            }
            eprintln!("\nstopping: what was started is taken down first (once more: less politely)");
            signal(Signal::TERM);
            std::thread::spawn(|| {
                std::thread::sleep(GRACE);
                signal(Signal::KILL);
            });
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context("cannot start a thread")?;
    Ok(())
}

/// Whether the user asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// While this lives, its thread takes things down: commands run to their end, whatever the user asks. What other threads do
/// meanwhile ends nevertheless.
pub struct Cleaning(PhantomData<*const ()>);

/// Begins to take things down.
pub fn cleaning() -> Cleaning {
    CLEANING.set(CLEANING.get() + 1);
    Cleaning(PhantomData)
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        CLEANING.set(CLEANING.get().saturating_sub(1));
    }
}

/// Ends the work between two steps when the user asked to stop.
///
/// # Errors
/// The user did, and this is not taking things down.
pub fn check() -> Result<()> {
    if asked() && !is_cleaning() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// A child's process group, signalled while this lives and ended with it.
pub struct Group(i32);

impl Group {
    /// The group whose leader is the process `id`.
    pub fn new(id: u32) -> Self {
        let id = i32::try_from(id).unwrap_or_default();
        let ends = !is_cleaning();
        groups().insert(id, ends);
        if ends && asked() {
            send(id, Signal::TERM);
        }
        Self(id)
    }
}

impl Drop for Group {
    /// Ends what the child left behind.
    fn drop(&mut self) {
        groups().remove(&self.0);
        send(self.0, Signal::KILL);
    }
}

fn signal(what: Signal) {
    for (group, _) in groups().iter().filter(|(_, ends)| **ends) {
        send(*group, what);
    }
}

fn is_cleaning() -> bool {
    CLEANING.get() > 0
}

fn send(group: i32, what: Signal) {
    if group > 1
        && let Some(pid) = Pid::from_raw(group)
    {
        // A group that is gone is what we want.
        let _ = kill_process_group(pid, what);
    }
}

fn groups() -> MutexGuard<'static, BTreeMap<i32, bool>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_things_down_keeps_nobody_else_from_ending() {
        let outer = cleaning();
        drop(cleaning());
        assert!(is_cleaning());
        assert!(!std::thread::spawn(is_cleaning).join().unwrap());
        drop(outer);
        assert!(!is_cleaning());
    }

    #[test]
    fn a_child_ends_unless_its_own_thread_takes_things_down() {
        // Above what a process id can be, and so nobody's group.
        let (ending, staying) = (i32::MAX - 1, i32::MAX);
        let group = |id: i32| Group::new(u32::try_from(id).unwrap());
        let _cleaning = cleaning();
        let _staying = group(staying);
        std::thread::spawn(move || {
            let _ending = group(ending);
            assert_eq!(groups().get(&ending), Some(&true));
        })
        .join()
        .unwrap();
        assert_eq!(groups().get(&staying), Some(&false));
    }
}
