//! Descriptors: how many the process may have, and what that leaves for connections.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::Limits;

/// Descriptors that are no client's: sockets that listen, watches of the API server, files.
const OWN: usize = 128;

/// Lets the process have as many descriptors as it may, as Go's runtime does, and says how many. The
/// limit it is started with is often 1,024, for programs that call `select(2)`; this one does not.
pub fn raise_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of descriptors cannot be raised");
        }
    }
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}

impl Limits {
    /// The same with no more connections than fit into so many descriptors.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Self {
        let room = descriptors.saturating_sub(OWN).max(2);
        let operations = self.operations.min(room / 8).max(1);
        let connections = self.connections.min(room - operations);
        if connections < self.connections {
            tracing::warn!(descriptors, connections, "fewer connections are taken: the process has few descriptors");
        }
        Self { connections, operations, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_process_itself() {
        let limits = Limits::default();
        let plenty = limits.within(1_048_576);
        assert_eq!((plenty.connections, plenty.operations), (limits.connections, limits.operations));
        for descriptors in [200, 1024] {
            let few = limits.within(descriptors);
            assert_eq!(few.connections + few.operations + OWN, descriptors);
            assert!(few.operations > 8, "{}", few.operations);
        }
        let none = limits.within(0);
        assert_eq!((none.connections, none.operations), (1, 1));
    }

    #[test]
    fn a_process_may_have_as_many_descriptors_as_its_hard_limit_says() {
        let raised = raise_descriptors();
        let maximum = getrlimit(Resource::Nofile).maximum.and_then(|it| usize::try_from(it).ok());
        assert_eq!(raised, maximum.unwrap_or(usize::MAX));
    }
}
