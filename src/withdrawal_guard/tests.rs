//! Which losses are held, and how holds end.

use std::path::Path;

use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(60);

fn guard_in(dir: &Path) -> WithdrawalGuard {
    WithdrawalGuard::new(Some(GuardSettings { percent: 50, floor: 20, hold: HOLD, accept: dir.join("accept") }))
}

/// A guard without an accept file.
fn guard() -> WithdrawalGuard {
    guard_in(Path::new("/nonexistent"))
}

/// Returns the verdict and the names of the events.
fn judge(guard: &mut WithdrawalGuard, missing: u64, live: u64, now: Instant) -> (Verdict, Vec<&'static str>) {
    let keys = (0..missing).map(|n| format!("prefix:t{n}"));
    let (verdict, events) = guard.judge(&[Loss { missing, live }], keys, now);
    let name = |event| match event {
        GuardEvent::Began => "began",
        GuardEvent::Recovered => "recovered",
        GuardEvent::Ended(HoldEnd::Accepted) => "accepted",
        GuardEvent::Ended(HoldEnd::Lasted) => "lasted",
        GuardEvent::Ended(HoldEnd::LastedInAll(_)) => "lasted in all",
        GuardEvent::Named { .. } => "named",
        GuardEvent::NotAccepted(_) => "not accepted",
    };
    (verdict, events.into_iter().map(name).collect())
}

#[test]
fn mass_withdrawals_are_held_and_small_losses_are_not() {
    let now = Instant::now();
    for (missing, live, want) in [
        (19, 19, Verdict::Withdraw),
        (10, 20, Verdict::Withdraw),
        (11, 20, Verdict::Hold),
        (20, 20, Verdict::Hold),
        (0, 20, Verdict::Withdraw),
        (0, 0, Verdict::Withdraw),
        (50, 100, Verdict::Withdraw),
        (51, 100, Verdict::Hold),
        (1, 100, Verdict::Withdraw),
    ] {
        assert_eq!(judge(&mut guard(), missing, live, now).0, want, "{missing} of {live}");
        assert_eq!(judge(&mut WithdrawalGuard::new(None), missing, live, now), (Verdict::Withdraw, vec![]));
    }
}

#[test]
fn guard_of_100_percent_holds_only_the_loss_of_everything() {
    let settings = guard().settings.map(|settings| GuardSettings { percent: 100, ..settings });
    for (missing, want) in [(99, Verdict::Withdraw), (100, Verdict::Hold)] {
        assert_eq!(judge(&mut WithdrawalGuard::new(settings.clone()), missing, 100, Instant::now()).0, want);
    }
}

#[test]
fn one_large_loss_holds_all_losses() {
    let now = Instant::now();
    let loss = |(missing, live)| Loss { missing, live };
    for (losses, want) in [
        ([(1, 1000), (20, 40)], Verdict::Withdraw),
        ([(1, 1000), (21, 40)], Verdict::Hold),
        ([(15, 15), (15, 15)], Verdict::Withdraw),
        ([(0, 0), (30, 30)], Verdict::Hold),
    ] {
        assert_eq!(guard().judge(&losses.map(loss), [[0; 0]; 0], now).0, want, "{losses:?}");
    }
}

#[test]
fn holds_end_by_time_by_the_operator_or_when_all_records_are_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("accept"), "").unwrap();
    let mut guard = guard_in(dir.path());
    let (now, later) = (Instant::now(), Instant::now() + HOLD);
    assert_eq!(judge(&mut guard, 20, 20, now), (Verdict::Hold, vec!["began"]));
    assert_eq!(judge(&mut guard, 1, 20, now), (Verdict::Hold, vec![]), "small losses are held during a hold");
    assert!(!guard.is_over(now) && guard.is_over(later));
    assert_eq!(judge(&mut guard, 1, 20, later), (Verdict::Withdraw, vec!["lasted"]));
    assert_eq!(judge(&mut guard, 20, 20, later), (Verdict::Hold, vec!["began"]), "a new one");
    assert_eq!(judge(&mut guard, 0, 20, later), (Verdict::Withdraw, vec!["recovered"]));
    assert_eq!(judge(&mut guard, 20, 20, later).0, Verdict::Hold);
    let accept = dir.path().join("accept");
    let settled = later + Duration::from_secs(1);
    assert!(!guard.is_over(later) && !guard.is_over(settled), "the file existed before the hold");
    std::fs::write(&accept, "t1\nt2\nt20\n").unwrap();
    assert!(!guard.is_over(later) && guard.is_over(settled));
    let (verdict, events) = judge(&mut guard, 20, 20, settled);
    assert_eq!(events, ["named"]);
    assert!(verdict.withdraws(b"prefix:t2") && !verdict.withdraws(b"prefix:t3"), "{verdict:?}");
    assert_eq!(judge(&mut guard, 18, 18, settled), (Verdict::Hold, vec![]), "the others");
    std::fs::write(&accept, "# none\n").unwrap();
    assert!(!guard.is_over(later) && guard.is_over(settled));
    assert_eq!(judge(&mut guard, 18, 18, settled), (Verdict::Hold, vec!["not accepted"]));
    std::fs::write(&accept, "").unwrap();
    assert!(!guard.is_over(later) && guard.is_over(settled));
    assert_eq!(judge(&mut guard, 18, 18, settled), (Verdict::Withdraw, vec!["accepted"]));
    assert_eq!(judge(&mut guard, 20, 20, settled), (Verdict::Hold, vec!["began"]), "accepted once");
}

#[test]
fn naming_all_held_records_ends_the_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut guard = guard_in(dir.path());
    let now = Instant::now();
    assert_eq!(judge(&mut guard, 20, 20, now).0, Verdict::Hold);
    assert_eq!(judge(&mut guard, 2, 20, now).0, Verdict::Hold);
    std::fs::write(dir.path().join("accept"), "t0\nt1\nt7\n").unwrap();
    let settled = now + Duration::from_secs(1);
    assert!(!guard.is_over(now) && guard.is_over(settled));
    let (_, events) = guard.judge(&[Loss { missing: 2, live: 20 }], ["prefix:t0", "prefix:t1"], settled);
    let [GuardEvent::Named { going: 2, held: 0, others }] = &*events else { panic!("{events:?}") };
    assert_eq!((others.to_string(), guard.hold()), ("\"prefix:t7\"".to_owned(), None));
}

#[test]
fn clock_restarts_after_pauses_but_the_total_is_bounded() {
    let mut guard = guard();
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(judge(&mut guard, 20, 20, now).0, Verdict::Hold);
    guard.pause();
    assert!(!guard.is_over(after(50)));
    guard.resume(after(50));
    guard.resume(after(55));
    assert!(!guard.is_over(after(109)) && guard.is_over(after(110)), "60 s after that");
    for second in (59..119).step_by(20) {
        guard.pause();
        assert!(!guard.is_over(after(3600)), "time stands still while the source does not answer");
        guard.resume(after(second));
        assert_eq!(judge(&mut guard, 20, 20, after(second)).0, Verdict::Hold);
    }
    assert!(!guard.is_over(after(119)) && guard.is_over(after(120)), "twice 60 s in all");
    assert_eq!(judge(&mut guard, 20, 20, after(120)), (Verdict::Withdraw, vec!["lasted in all"]));
    assert_eq!(judge(&mut guard, 20, 20, after(121)).0, Verdict::Hold);
    guard.set_hold(None);
    assert_eq!(judge(&mut guard, 20, 20, after(7200)).0, Verdict::Hold, "a hold of its own");
    assert!(!guard.is_over(after(7259)));
    guard.set_hold(None);
    guard.resume(after(7200));
    assert!(!guard.is_over(after(9999)));
}

proptest! {
    /// A mass withdrawal never happens before the hold time, and at the latest with the first answer after twice that time.
    #[test]
    fn nothing_is_withdrawn_too_early_or_held_too_long(steps in prop::collection::vec((0..4_u8, 0..40_u64, 0..40_u64), 1..40)) {
        let mut guard = guard();
        let (mut now, mut first, mut since) = (Instant::now(), None, None);
        for (step, missing, seconds) in steps {
            now += Duration::from_secs(seconds);
            match step {
                0 => {
                    guard.pause();
                    since = None;
                }
                1 => {
                    guard.resume(now);
                    since = since.or(first.map(|_| now));
                }
                _ => {
                    let past = |from: Option<Instant>, time| from.is_some_and(|from| now.duration_since(from) >= time);
                    let is_over = past(since, HOLD) || since.is_some() && past(first, HOLD * 2);
                    let is_mass = missing > 20 || missing == 40;
                    let holds = missing > 0 && (first.is_some() || is_mass) && !is_over;
                    prop_assert_eq!(guard.is_over(now), first.is_some() && is_over);
                    let (verdict, _) = judge(&mut guard, missing, 40, now);
                    prop_assert_eq!(verdict, if holds { Verdict::Hold } else { Verdict::Withdraw });
                    if holds && first.is_none() {
                        (first, since) = (Some(now), Some(now));
                    } else if !holds {
                        (first, since) = (None, None);
                    }
                }
            }
            prop_assert_eq!(guard.hold(), first.map(|first| Hold { first, since }));
        }
    }
}
