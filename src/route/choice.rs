//! Which of a route's backends is asked next.

/// Round robin from `turn` among `count` backends: the first that was neither tried in this request nor failed lately;
/// else the first that was not tried. A single backend, or all of them failed, is asked all the same.
///
/// `tried` has a bit per backend. `None` when all were tried.
pub fn choose(count: usize, turn: usize, tried: u64, is_failed: impl Fn(usize) -> bool) -> Option<usize> {
    if count == 1 {
        return (tried & 1 == 0).then_some(0);
    }
    let order = || (0..count).map(|step| (turn % count + step) % count).filter(|&at| tried >> at & 1 == 0);
    order().find(|&at| !is_failed(at)).or_else(|| order().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round() {
        let chosen: Vec<_> = (0..5).map(|turn| choose(3, turn, 0, |_| false).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn failed_ones_come_last_and_tried_ones_never() {
        for (turn, tried, failed, want) in [
            (0, 0b000, 0b001, Some(1)),
            (0, 0b010, 0b001, Some(2)),
            (0, 0b110, 0b001, Some(0)),
            (1, 0b000, 0b111, Some(1)),
            (0, 0b111, 0b000, None),
            (usize::MAX, 0, 0, Some(0)),
        ] {
            assert_eq!(choose(3, turn, tried, |at| failed >> at & 1 == 1), want, "{turn} {tried:b} {failed:b}");
        }
    }

    #[test]
    fn a_single_backend_is_never_out() {
        assert_eq!(choose(1, 7, 0, |_| true), Some(0));
        assert_eq!(choose(1, 7, 1, |_| false), None);
        assert_eq!(choose(64, 63, !(1 << 62), |_| true), Some(62));
        assert_eq!(choose(0, 0, 0, |_| false), None);
    }
}
