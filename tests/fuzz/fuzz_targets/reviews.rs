#![no_main]

use std::sync::LazyLock;

use portcullis::rules::RuleSet;

#[path = "../../hostile/choices.rs"]
mod choices;
#[path = "../../hostile/grammar.rs"]
mod grammar;

static RULES: LazyLock<RuleSet> = LazyLock::new(grammar::restricted);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grammar::check(&RULES, bytes));
