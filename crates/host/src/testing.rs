//! A machine for tests: a folder with the files that a kernel would show, and a kernel that follows the test.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::host::Host;
use crate::system::KernelInterface;

/// A change of a machine.
type Change = Box<dyn Fn(&Machine)>;
/// The second of the clock, and the change at that time.
type Event = (u64, Change);

/// The machine. Clones share its state.
#[derive(Clone)]
pub(crate) struct Machine {
    folder: Rc<tempfile::TempDir>,
    clock: Rc<Cell<Duration>>,
    events: Rc<RefCell<Vec<Event>>>,
    /// The error number of a load, and the change that the load makes.
    load: Rc<RefCell<(i32, Option<Change>)>>,
    /// Modules that were removed.
    pub(crate) removed: Rc<RefCell<Vec<String>>>,
}

/// A task of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'t> {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) name: &'t str,
    /// The state's letter, as `stat` shows it.
    pub(crate) state: &'t str,
    /// Whether the task runs the patched functions, as `patch_state` shows it.
    pub(crate) patched: &'t str,
    pub(crate) stack: &'t str,
}

impl<'t> Task<'t> {
    /// The only thread of a process. It sleeps, and is not patched.
    pub(crate) fn sleeping(pid: u32, name: &'t str, stack: &'t str) -> Task<'t> {
        Task { pid, tid: pid, name, state: "S", patched: "0", stack }
    }
}

impl Machine {
    /// A machine that runs 6.12.1+test with livepatch support, without a loaded livepatch.
    pub(crate) fn new() -> Machine {
        let machine = Machine {
            folder: Rc::new(tempfile::tempdir().unwrap()),
            clock: Rc::default(),
            events: Rc::default(),
            load: Rc::default(),
            removed: Rc::default(),
        };
        machine.put("/proc/sys/kernel/osrelease", "6.12.1+test\n");
        machine.put("/proc/sys/kernel/random/boot_id", "boot-1\n");
        machine.put("/proc/cmdline", "quiet\n");
        let id = [&[4, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
        machine.put_bytes("/sys/kernel/notes", &id);
        fs::create_dir_all(machine.at("/sys/kernel/livepatch")).unwrap();
        fs::create_dir_all(machine.at("/usr/lib/modules/6.12.1+test")).unwrap();
        machine
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        self.put_bytes(path, text.as_bytes());
    }

    pub(crate) fn put_bytes(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Removes a folder.
    pub(crate) fn take(&self, path: &str) {
        fs::remove_dir_all(self.at(path)).unwrap();
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// Adds a loaded livepatch.
    pub(crate) fn livepatch(&self, name: &str, enabled: &str, transition: &str, functions: &[&str]) {
        let folder = format!("/sys/kernel/livepatch/{name}");
        self.put(&format!("{folder}/enabled"), enabled);
        self.put(&format!("{folder}/transition"), transition);
        self.put(&format!("{folder}/force"), "");
        for function in functions {
            fs::create_dir_all(self.at(&format!("{folder}/vmlinux/{function},1"))).unwrap();
        }
        self.put(&format!("/sys/module/{name}/refcnt"), "1\n");
        self.put(&format!("/sys/module/{name}/taint"), "OK\n");
    }

    /// Adds a task.
    pub(crate) fn task(&self, task: &Task<'_>) {
        let Task { pid, tid, name, state, patched, stack } = *task;
        let folder = format!("/proc/{pid}/task/{tid}");
        self.put(&format!("{folder}/comm"), name);
        self.put(&format!("{folder}/stat"), &format!("{tid} ({name}) {state} 1 2"));
        self.put(&format!("{folder}/patch_state"), patched);
        self.put(&format!("{folder}/stack"), stack);
    }

    /// Schedules a change for a second of the clock.
    pub(crate) fn after(&self, seconds: u64, event: impl Fn(&Machine) + 'static) {
        self.events.borrow_mut().push((seconds, Box::new(event)));
    }

    /// Sets the error number and the change of the next load.
    pub(crate) fn on_load(&self, number: i32, load: impl Fn(&Machine) + 'static) {
        *self.load.borrow_mut() = (number, Some(Box::new(load)));
    }

    pub(crate) fn host(&self) -> Host {
        Host::new(self.folder.path(), Box::new(self.clone()))
    }
}

impl KernelInterface for Machine {
    fn load(&self, _: &File, _: Option<&[u8]>, log_lines: &mut Vec<String>) -> io::Result<()> {
        let (number, load) = &*self.load.borrow();
        if let Some(load) = load {
            load(self);
        }
        if *number == 0 {
            return Ok(());
        }
        log_lines.push("livepatch: no".to_owned());
        Err(io::Error::from_raw_os_error(*number))
    }

    fn remove(&self, module: &str) -> io::Result<()> {
        if self.at(&format!("/sys/kernel/livepatch/{module}")).exists() {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        self.removed.borrow_mut().push(module.to_owned());
        fs::remove_dir_all(self.at(&format!("/sys/module/{module}")))
    }

    fn sleep(&self, time: Duration) {
        self.clock.set(self.clock.get() + time);
        let now = self.clock.get().as_secs();
        let due: Vec<Event> = self.events.borrow_mut().extract_if(.., |(second, _)| *second <= now).collect();
        due.iter().for_each(|(_, event)| event(self));
    }

    fn clock(&self) -> Duration {
        self.clock.get()
    }

    fn date(&self) -> u64 {
        1_700_000_000 + self.clock.get().as_secs()
    }
}
