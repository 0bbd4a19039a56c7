//! A namespace editor asks for one thing after another, at random and with the values of attacks. As
//! long as the gate says nothing, no pod of the namespace is open.
//!
//! ```text
//! bytes -> choices -> requests -> world (stores, runs controllers, collects) -> oracle
//!                                   |  ^
//!      a review, if it is sent      v  | allowed, and nothing said
//!                                  the gate
//! ```
//!
//! A property test and a fuzz target share it.

mod mesh;
mod oracle;
mod requests;
mod sent;
mod world;

use world::{Outcome, World};

use crate::choices::Choices;

/// How many bytes decide one request.
pub(crate) const BYTES_A_REQUEST: usize = 16;

/// Drives a sequence of requests. It fails, with what was stored, if a pod is open that the gate said
/// nothing of.
pub(crate) fn drive(configuration: &str, bytes: &[u8]) -> Result<(), String> {
    let mut world = World::new(configuration);
    let mut stored = Vec::new();
    for one in bytes.chunks(BYTES_A_REQUEST) {
        let (line, outcome) = requests::ask(&mut world, &mut Choices::new(one));
        if outcome != Outcome::Silent {
            continue;
        }
        stored.push(line);
        let open = world.open();
        if !open.is_empty() {
            return Err(format!("open, and the gate said nothing: {open:#?}\nafter\n{}", stored.join("\n")));
        }
    }
    Ok(())
}
