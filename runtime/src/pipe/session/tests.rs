use super::*;
use portolan_core::wire::pipe::split;
use proptest::collection::vec;
use proptest::prelude::*;

const WINDOW: u32 = 40_000;
const ID: SessionId = SessionId([9; 16]);

/// Two sessions with a carrier between them, each side's frames handed over at once.
fn pair() -> (Session, Session) {
    let (mut opener, mut acceptor) = (Session::new(WINDOW), Session::new(WINDOW));
    meet(&mut opener, &mut acceptor);
    (opener, acceptor)
}

fn meet(opener: &mut Session, acceptor: &mut Session) {
    let hello = opener.hello(ID);
    let answer = admit(acceptor, hello).expect("it is fair").expect("it is the newest");
    accepted(opener, answer).expect("it is fair");
}

fn admit(acceptor: &mut Session, hello: Frame) -> Result<Option<Frame>, Violation> {
    if let Frame::Open { carrier, window, .. } = hello {
        return acceptor.admit(carrier, 0, Some(window));
    }
    let Frame::Resume { carrier, received, .. } = hello else { panic!("no hello: {hello:?}") };
    acceptor.admit(carrier, received, None)
}

fn accepted(opener: &mut Session, answer: Frame) -> Result<(), Violation> {
    let Frame::Accept { window, received } = answer else { panic!("no answer: {answer:?}") };
    opener.begin(received, Some(window))
}

/// Hand over everything that `from` has to say.
fn tell(from: &mut Session, to: &mut Session) -> Vec<Frame> {
    let mut wire = BytesMut::new();
    from.produce(&mut wire, usize::MAX);
    let mut said = Vec::new();
    while let Some(frame) = split(&mut wire).expect("they are frames") {
        assert_eq!(to.handle(frame.clone()), Ok(None));
        said.push(frame);
    }
    said
}

fn read(session: &mut Session) -> Vec<u8> {
    let mut buffer = vec![0; 100_000];
    match session.read(&mut buffer) {
        Readable::Bytes(count) => buffer[..count].to_vec(),
        Readable::Nothing | Readable::End => Vec::new(),
    }
}

#[test]
fn what_an_older_carrier_brought_meanwhile_is_not_sent_again() {
    let (mut opener, mut acceptor) = pair();
    acceptor.write(b"brought by the first");
    let hello = opener.hello(ID);
    tell(&mut acceptor, &mut opener);
    let answer = admit(&mut acceptor, hello).expect("it is fair").expect("it is the newest");
    accepted(&mut opener, answer).expect("it is fair");
    assert_eq!(read(&mut opener), b"brought by the first");
    tell(&mut opener, &mut acceptor);
    acceptor.write(b", and more");
    let said = tell(&mut acceptor, &mut opener);
    let more = Frame::Data { offset: 20, bytes: Bytes::from_static(b", and more") };
    assert_eq!(said, [Frame::Ack { position: 0 }, more]);
    assert_eq!(read(&mut opener), b", and more");
}

#[test]
fn bytes_go_both_ways_and_end_one_by_one() {
    let (mut opener, mut acceptor) = pair();
    assert_eq!(opener.write(b"question"), 8);
    opener.finish();
    tell(&mut opener, &mut acceptor);
    assert_eq!(read(&mut acceptor), b"question");
    assert!(acceptor.has_read_all() && !acceptor.is_complete());
    assert_eq!(acceptor.write(b"answer"), 6);
    acceptor.finish();
    tell(&mut acceptor, &mut opener);
    assert_eq!(read(&mut opener), b"answer");
    assert!(opener.is_complete() && !opener.is_over());
    let last = tell(&mut opener, &mut acceptor);
    assert_eq!(last, [Frame::Ack { position: 7 }, Frame::Done]);
    assert!(acceptor.is_over());
    assert_eq!(tell(&mut acceptor, &mut opener), [Frame::Done]);
    assert!(opener.is_over());
}

#[test]
fn a_writer_waits_for_the_reader() {
    let (mut opener, mut acceptor) = pair();
    let text = vec![5; 100_000];
    assert_eq!(opener.write(&text), WINDOW as usize);
    assert_eq!(opener.write(&text), 0);
    tell(&mut opener, &mut acceptor);
    tell(&mut acceptor, &mut opener);
    assert!(!opener.has_room(), "nothing was read");
    assert_eq!(read(&mut acceptor).len(), WINDOW as usize);
    tell(&mut acceptor, &mut opener);
    assert_eq!(opener.write(&text), WINDOW as usize);
}

#[test]
fn a_session_goes_on_where_the_other_side_is() {
    let (mut opener, mut acceptor) = pair();
    opener.write(b"one two three");
    let mut lost = BytesMut::new();
    opener.produce(&mut lost, usize::MAX);
    meet(&mut opener, &mut acceptor);
    let said = tell(&mut opener, &mut acceptor);
    assert!(matches!(&said[..], [Frame::Ack { position: 0 }, Frame::Data { offset: 0, .. }]));
    // Arrived, and neither read nor acknowledged: it is not sent again.
    meet(&mut opener, &mut acceptor);
    assert_eq!(tell(&mut opener, &mut acceptor), [Frame::Ack { position: 0 }]);
    assert_eq!(read(&mut acceptor), b"one two three");
}

#[test]
fn an_older_carrier_is_not_admitted() {
    let (mut opener, mut acceptor) = pair();
    let older = opener.hello(ID);
    meet(&mut opener, &mut acceptor);
    assert_eq!(admit(&mut acceptor, older.clone()), Ok(None));
    assert_eq!(admit(&mut acceptor, older), Ok(None));
}

#[test]
fn a_lost_answer_is_given_again() {
    let (mut opener, mut acceptor) = (Session::new(WINDOW), Session::new(WINDOW));
    let hello = opener.hello(ID);
    admit(&mut acceptor, hello).expect("it is fair").expect("it is the newest");
    acceptor.write(b"early");
    acceptor.produce(&mut BytesMut::new(), usize::MAX);
    assert!(matches!(opener.hello(ID), Frame::Open { carrier: 1, .. }));
    meet(&mut opener, &mut acceptor);
    tell(&mut acceptor, &mut opener);
    assert_eq!(read(&mut opener), b"early");
}

#[test]
fn what_is_forbidden_is_named() {
    let data = |offset, len| Frame::Data { offset, bytes: vec![0; len].into() };
    for (frame, violation) in [
        (data(1, 1), Violation::Gap { offset: 1 }),
        (Frame::Fin { offset: 1 }, Violation::Gap { offset: 1 }),
        (data(0, WINDOW as usize + 1), Violation::Overrun { offset: 0 }),
        (Frame::Ack { position: 1 }, Violation::Future { position: 1 }),
        (Frame::Done, Violation::Early),
        (Frame::Accept { window: 1, received: 0 }, Violation::Misplaced),
    ] {
        assert_eq!(pair().1.handle(frame), Err(violation));
    }
    let (_, mut ended) = pair();
    assert_eq!(ended.handle(data(0, 3)), Ok(None));
    assert_eq!(ended.handle(Frame::Fin { offset: 2 }), Err(Violation::End { offset: 2 }));
    assert_eq!(ended.handle(Frame::Fin { offset: 3 }), Ok(None));
    assert_eq!(ended.handle(Frame::Fin { offset: 3 }), Ok(None));
    assert_eq!(ended.handle(Frame::Fin { offset: 4 }), Err(Violation::End { offset: 3 }));
    assert_eq!(ended.handle(data(2, 2)), Err(Violation::End { offset: 3 }));
    assert_eq!(ended.handle(data(1, 2)), Ok(None));
    let resumed = ended.admit(7, 1, None);
    assert_eq!(resumed, Err(Violation::Future { position: 1 }));
    assert_eq!(ended.handle(Frame::Reset(ResetCode::Full)), Ok(Some(ResetCode::Full)));
}

/// A carrier: what is on the way, and what has arrived of a frame, towards the acceptor and back.
#[derive(Default)]
struct Wire {
    number: usize,
    way: [BytesMut; 2],
    arrived: [BytesMut; 2],
}

/// Two sessions, the carriers between them, and what the applications did.
struct World {
    sessions: [Session; 2],
    wires: Vec<Wire>,
    dialled: usize,
    /// The carrier that each side uses.
    present: [Option<usize>; 2],
    written: [u64; 2],
    seen: [u64; 2],
    ended: [bool; 2],
}

/// What may happen; the first number chooses the side.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize, usize),
    Finish(usize),
    Read(usize, usize),
    Produce(usize, usize),
    /// Bytes arrive on the oldest (0) or the newest (1) carrier.
    Arrive(usize, usize, usize),
    Dial,
    Cut(usize),
}

/// The byte that a side writes at an offset.
fn byte(side: usize, offset: u64) -> u8 {
    let mixed = (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u8::try_from((mixed ^ side as u64) & 0xff).unwrap_or(0)
}

impl World {
    fn new() -> World {
        World {
            sessions: [Session::new(WINDOW), Session::new(WINDOW)],
            wires: Vec::new(),
            dialled: 0,
            present: [None; 2],
            written: [0; 2],
            seen: [0; 2],
            ended: [false; 2],
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(side, len) if !self.sessions[side].has_finished() => {
                let from = self.written[side];
                let text: Vec<u8> =
                    (from..from + len as u64).map(|offset| byte(side, offset)).collect();
                self.written[side] += self.sessions[side].write(&text) as u64;
            }
            Step::Write(..) => {}
            Step::Finish(side) => self.sessions[side].finish(),
            Step::Read(side, len) => self.read(side, len),
            Step::Produce(side, len) => {
                let present = self.present[side];
                if let Some(wire) = self.wires.iter_mut().find(|w| Some(w.number) == present) {
                    let mut said = BytesMut::new();
                    self.sessions[side].produce(&mut said, len);
                    wire.way[side].extend_from_slice(&said);
                }
            }
            Step::Arrive(side, which, len) => self.arrive(side, which, len),
            Step::Dial if self.wires.len() < 3 => {
                let mut wire = Wire { number: self.dialled, ..Wire::default() };
                self.dialled += 1;
                encode(&self.sessions[0].hello(ID), &mut wire.way[0]);
                self.wires.push(wire);
            }
            Step::Dial => {}
            Step::Cut(which) => {
                if let Some(at) = self.place(which) {
                    self.cut(self.wires[at].number);
                }
            }
        }
        for session in &self.sessions {
            let (kept, unread) = session.held();
            assert!(kept <= WINDOW as usize && unread <= WINDOW as usize, "{kept}, {unread}");
        }
    }

    fn place(&self, which: usize) -> Option<usize> {
        if which == 0 {
            (!self.wires.is_empty()).then_some(0)
        } else {
            self.wires.len().checked_sub(1)
        }
    }

    fn cut(&mut self, number: usize) {
        self.wires.retain(|wire| wire.number != number);
        for present in self.present.iter_mut().filter(|present| **present == Some(number)) {
            *present = None;
        }
    }

    fn read(&mut self, side: usize, len: usize) {
        let mut buffer = vec![0; len];
        match self.sessions[side].read(&mut buffer) {
            Readable::Bytes(count) => {
                for got in &buffer[..count] {
                    assert_eq!(*got, byte(1 - side, self.seen[side]), "at {}", self.seen[side]);
                    self.seen[side] += 1;
                }
            }
            Readable::End => self.ended[side] = true,
            Readable::Nothing => {}
        }
        assert!(self.seen[side] <= self.written[1 - side]);
    }

    /// Bytes that `side` sent arrive at the other one.
    fn arrive(&mut self, side: usize, which: usize, len: usize) {
        let Some(at) = self.place(which) else { return };
        let wire = &mut self.wires[at];
        let number = wire.number;
        let bytes = wire.way[side].split_to(len.min(wire.way[side].len()));
        wire.arrived[side].extend_from_slice(&bytes);
        let to = 1 - side;
        loop {
            let Some(wire) = self.wires.iter_mut().find(|wire| wire.number == number) else {
                return;
            };
            let Some(frame) = split(&mut wire.arrived[side]).expect("they are frames") else {
                return;
            };
            if self.present[to] == Some(number) {
                assert_eq!(self.sessions[to].handle(frame), Ok(None));
                continue;
            }
            let older = self.present[to].replace(number);
            if to == 0 {
                accepted(&mut self.sessions[0], frame).expect("it is fair");
            } else {
                let answer = admit(&mut self.sessions[1], frame).expect("it is fair");
                match answer {
                    Some(answer) => encode(&answer, &mut wire.way[1]),
                    None => {
                        self.present[to] = older;
                        return self.cut(number);
                    }
                }
            }
            // Who goes over to another carrier resets the one before.
            if let Some(older) = older {
                self.cut(older);
            }
        }
    }

    /// From now on nothing breaks: everything must arrive.
    fn heal(&mut self) {
        while let Some(wire) = self.wires.first() {
            self.cut(wire.number);
        }
        self.step(Step::Dial);
        for side in [0, 1] {
            self.step(Step::Finish(side));
        }
        for _ in 0..100 {
            for side in [0, 1] {
                self.step(Step::Produce(side, usize::MAX));
                self.step(Step::Arrive(side, 1, usize::MAX));
                self.step(Step::Read(1 - side, 100_000));
                self.step(Step::Read(1 - side, 1));
            }
        }
        assert_eq!(self.seen, [self.written[1], self.written[0]]);
        assert_eq!(self.ended, [true; 2]);
        assert!(self.sessions.iter().all(Session::is_over));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![0..40_usize, 0..50_000_usize];
    prop_oneof![
        4 => (0..2_usize, len()).prop_map(|(side, len)| Step::Write(side, len)),
        1 => (0..40_usize).prop_map(|die| if die < 2 { Step::Finish(die) } else { Step::Dial }),
        4 => (0..2_usize, len()).prop_map(|(side, len)| Step::Read(side, len)),
        5 => (0..2_usize, len()).prop_map(|(side, len)| Step::Produce(side, len)),
        8 => (0..2_usize, 0..2_usize, len()).prop_map(|(a, b, len)| Step::Arrive(a, b, len)),
        2 => Just(Step::Dial),
        1 => (0..2_usize).prop_map(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order(steps in vec(step(), 0..250)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
    }
}
