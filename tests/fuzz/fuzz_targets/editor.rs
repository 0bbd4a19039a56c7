#![no_main]

#[path = "../../hostile/choices.rs"]
mod choices;
#[path = "../../hostile/editor/mod.rs"]
mod editor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(open) = editor::drive("profile: restricted", bytes) {
        panic!("{open}");
    }
});
