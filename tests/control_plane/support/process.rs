//! Processes that never outlive this one, however it ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many lines of a log are shown.
const TAIL: usize = 15;

/// A running program whose output goes to a file.
pub(crate) struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program. Its output is added to the file.
    pub(crate) fn spawn(name: &'static str, command: &mut Command, log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        // A group of its own: Ctrl-C is for this process, which ends the others in their order.
        let child =
            command.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Heir::tell("process", child.id());
        Self { name, log, child }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log if the program has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} has ended: {status}\n{}", self.name, self.tail());
        }
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid]).status().unwrap();
        assert!(kill.success(), "{} cannot be sent {signal}", self.name);
    }

    /// Asks the program to end and waits until it has, at most so long.
    pub(crate) fn stop(mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(asked.elapsed() < within, "{} did not end within {within:?}\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything it has written.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last it has written, under a heading.
    pub(crate) fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
        format!("---- the end of {}\n{}\n----", self.log.display(), last.join("\n"))
    }
}

impl Drop for Process {
    /// Kills it, if it still runs.
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Before its id is free for another process.
        Heir::tell("ended", self.child.id());
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// A folder that is removed when it is dropped, or when this process ends in any way.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one for temporary files.
    pub(crate) fn new(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap().keep();
        Heir::tell("folder", folder.display());
        Self(folder)
    }

    /// Writes a file in it and says where it is.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // While a test fails, its files are what is looked at next.
        if std::thread::panicking() {
            Heir::tell("kept", self.0.display());
            eprintln!("kept: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A shell that waits for this process to end, by whatever cause, and then ends the processes and
/// removes the folders that are left. It learns of the end by a pipe that only this process holds.
struct Heir {
    /// Never waited for: it outlives this process.
    _shell: Child,
    words: ChildStdin,
}

impl Heir {
    const WILL: &str = r#"
        without() { for it in $1; do [ "$it" = "$2" ] || printf '%s\n' "$it"; done; }
        IFS='
'
        set -f
        processes= folders=
        while IFS=' ' read -r verb what; do
          case $verb in
            process) processes="$processes$IFS$what" ;;
            ended) processes=$(without "$processes" "$what") ;;
            folder) folders="$folders$IFS$what" ;;
            kept) folders=$(without "$folders" "$what") ;;
          esac
        done
        [ -z "$processes" ] || kill -s KILL $processes 2> /dev/null
        for folder in $folders; do
          # What was just killed may still be writing.
          for attempt in 1 2 3 4 5; do rm -rf -- "$folder" 2> /dev/null && break; sleep 0.2; done
        done
    "#;

    fn tell(verb: &str, what: impl std::fmt::Display) {
        static HEIR: OnceLock<Mutex<Heir>> = OnceLock::new();
        let heir = HEIR.get_or_init(|| {
            let mut shell = Command::new("sh");
            shell.args(["-c", Self::WILL]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut shell = shell.process_group(0).spawn().expect("there is a shell");
            let words = shell.stdin.take().expect("it was asked for");
            Mutex::new(Heir { _shell: shell, words })
        });
        let mut heir = heir.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(heir.words, "{verb} {what}").expect("the shell reads until this process ends");
    }
}
