//! The monitor's history in a file or in Redis: any JSON is a history that a round can use, or is refused.

use std::time::Duration;

use urlproxy::monitor::RestartHistory;

const NOW: u64 = 1_790_000_000;

pub fn check(bytes: &[u8]) {
    let Ok(mut history) = serde_json::from_slice::<RestartHistory>(bytes) else { return };
    let window = Duration::from_secs(3600);
    let written = serde_json::to_string(&history).expect("it was read");
    assert_eq!(serde_json::from_str::<RestartHistory>(&written).expect("it was written"), history);
    history.prune(NOW, window);
    let tools: Vec<String> = history.starts.keys().chain(history.rounds.waiting.keys()).cloned().collect();
    for tool in &tools {
        let at = history.next_restart_at(tool, 3, window);
        assert!(at <= NOW + window.as_secs(), "{tool} waits until {at}");
        let _ = (history.starts_of(tool), history.priority_of(tool), history.deleting_for(tool, NOW));
        let _ = history.is_backing_off(tool, NOW, Duration::from_secs(60), window);
    }
    for count in [0, 19, 20, 1000] {
        let _ = history.rounds.listed.judge(count, 20);
        let _ = history.rounds.jobs.judge(count, count);
        let _ = history.rounds.wanted.judge(count, 0);
    }
    let other = history.clone();
    history.merge(other);
    history.record_start("hello", NOW);
    history.record_begun("hello", NOW, bytes.len().is_multiple_of(2));
    history.set_waiting(tools.iter().map(String::as_str), NOW);
    history.prune(NOW + 1, window);
}
