//! Random sequences of an editor's requests, the same ones each time. `PROPTEST_CASES` asks for more,
//! `PROPTEST_RNG_SEED` for others.

use std::sync::LazyLock;

use portcullis::rules::RuleSet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use crate::editor::{BYTES_A_REQUEST, drive};
use crate::grammar;

fn cases(cases: u32) -> ProptestConfig {
    let ProptestConfig { cases: asked, rng_seed, .. } = ProptestConfig::default();
    let is_set = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") { asked } else { cases },
        rng_seed: if is_set("PROPTEST_RNG_SEED") { rng_seed } else { RngSeed::Fixed(0x0C0F_FEE0) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

static RULES: LazyLock<RuleSet> = LazyLock::new(grammar::restricted);

fn sequence() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<[u8; BYTES_A_REQUEST]>(), 1..16).prop_map(|requests| requests.concat())
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_namespace_editor_opens_no_workload_that_the_gate_says_nothing_of(bytes in sequence()) {
        let driven = drive("profile: restricted", &bytes);
        prop_assert!(driven.is_ok(), "{}", driven.unwrap_err());
    }

    #[test]
    fn a_review_of_any_shape_has_one_answer_in_any_cluster(bytes in vec(any::<u8>(), 0..600)) {
        grammar::check(&RULES, &bytes);
    }
}
