//! What is written is read back.

use crate::values;
use portolan_core::flight::{Head, Reader, Step, Tail, Writer};
use proptest::prelude::*;

pub(crate) fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn written(head: &Head, steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(head, &mut out);
    steps.iter().for_each(|step| writer.step(step, &mut out));
    out
}

pub(crate) fn read(bytes: &[u8]) -> (Head, Vec<Step>) {
    let (head, mut reader) = Reader::new(bytes).expect("a record");
    let steps = reader.by_ref().map(|step| step.expect("a step")).collect();
    assert_eq!(reader.tail(), Tail::Whole);
    (head, steps)
}

proptest! {
    #![proptest_config(settings(256))]

    #[test]
    fn heads_and_steps(
        (head, steps) in values::head().prop_flat_map(|head| {
            let steps = values::steps(head.now, 8);
            (Just(head), steps)
        }),
    ) {
        let bytes = written(&head, &steps);
        let (same_head, same_steps) = read(&bytes);
        prop_assert_eq!(&same_head, &head);
        prop_assert_eq!(same_steps.len(), steps.len());
        for (same, step) in same_steps.iter().zip(&steps) {
            prop_assert_eq!((same.now, same.unix), (step.now, step.unix));
            prop_assert_eq!(&same.drawn, &step.drawn);
            prop_assert_eq!(&same.signatures, &step.signatures);
            prop_assert_eq!(same.digest, step.digest);
            // Dial data apart, of which there is none by chance, the event is the same.
            prop_assert_eq!(&same.event, &step.event);
        }
        prop_assert_eq!(written(&same_head, &same_steps), bytes, "and written again");
    }
}
