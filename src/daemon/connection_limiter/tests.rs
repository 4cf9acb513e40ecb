use tokio::time::timeout;

use super::*;

type Limiter = Arc<ConnectionLimiter<u8, &'static str>>;

const LIMITS: Limits = Limits { total: 4, per_host: 2, per_owner: 1 };

fn limiter() -> Limiter {
    ConnectionLimiter::new(ConnectionMeter::default())
}

fn busy(limiter: &Limiter, host: u8, limits: &Limits) -> Result<Permit<u8, &'static str>, Refused> {
    let permit = limiter.admit(host, limits)?;
    permit.set_busy();
    Ok(permit)
}

async fn is_evicted<O: Clone + Eq + Hash>(permit: &Permit<u8, O>) -> bool {
    timeout(Duration::from_millis(1), permit.evicted()).await.is_ok()
}

#[track_caller]
fn assert_empty(limiter: &Limiter) {
    let state = limiter.state.lock();
    assert!(state.open.is_empty() && state.hosts.is_empty() && state.idle.is_empty());
    assert_eq!(limiter.meter.open.get(), 0);
}

#[test]
fn one_host_cannot_take_all_permits() {
    let limiter = limiter();
    let limits = Limits::of(100);
    let first: Vec<_> = (0..50).map(|_| busy(&limiter, 1, &limits).unwrap()).collect();
    let refused = |host| busy(&limiter, host, &limits).unwrap_err();
    assert_eq!(refused(1), Refused { limit: Limit::PerHost, first: true });
    assert!(!refused(1).first);
    let second: Vec<_> = (0..50).map(|_| busy(&limiter, 2, &limits).unwrap()).collect();
    assert_eq!(refused(3), Refused { limit: Limit::Total, first: true });
    assert!(!refused(3).first);
    assert_eq!(limiter.meter.open.get(), 100);
    drop(first);
    assert!(busy(&limiter, 3, &limits).is_ok());
    drop(second);
    assert_empty(&limiter);
}

#[tokio::test]
async fn longest_idle_connection_is_evicted() {
    let limiter = limiter();
    let admit = |host| limiter.admit(host, &LIMITS).unwrap();
    let (oldest, kept, third, fourth) = (admit(1), admit(2), admit(1), admit(3));
    kept.set_busy();
    let fifth = admit(4);
    assert!(is_evicted(&oldest).await && !is_evicted(&third).await);
    // At the per-host limit, one of the same host, even if another host's has been idle longer.
    let sixth = admit(4);
    assert!(is_evicted(&third).await && !is_evicted(&fifth).await);
    let seventh = admit(4);
    assert!(is_evicted(&fifth).await && !is_evicted(&fourth).await);
    // Idle again: evicted last.
    kept.set_idle();
    let eighth = admit(5);
    assert!(is_evicted(&fourth).await && !is_evicted(&kept).await);
    assert_eq!(limiter.state.lock().open.len(), 4);
    drop((oldest, kept, third, fourth, fifth, sixth, seventh, eighth));
    assert_empty(&limiter);
}

#[tokio::test]
async fn eviction_wakes_waiting_tasks() {
    let limiter = limiter();
    let permit = limiter.admit(1, &LIMITS).unwrap();
    let waiting = tokio::spawn(async move { permit.evicted().await });
    tokio::task::yield_now().await;
    let _others: Vec<_> = (0..2).map(|_| limiter.admit(1, &LIMITS).unwrap()).collect();
    timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
}

#[test]
fn owner_limit_counts_per_host() {
    let limiter = limiter();
    let (first, second) = (busy(&limiter, 1, &LIMITS).unwrap(), busy(&limiter, 1, &LIMITS).unwrap());
    first.set_owner("a").unwrap();
    assert_eq!(second.set_owner("a"), Err(Refused { limit: Limit::PerOwner, first: true }));
    second.set_owner("b").unwrap();
    let elsewhere = busy(&limiter, 2, &LIMITS).unwrap();
    elsewhere.set_owner("a").unwrap();
    drop(first);
    // Setting the same owner again, then another one.
    second.set_owner("b").unwrap();
    second.set_owner("a").unwrap();
    drop((second, elsewhere));
    assert_empty(&limiter);
}

#[test]
fn derived_limits_are_never_zero() {
    for (total, per_host, per_owner) in [(1, 1, 1), (2, 1, 1), (100, 50, 25), (1024, 64, 32), (100_000, 64, 32)] {
        assert_eq!(Limits::of(total), Limits { total, per_host, per_owner });
    }
}

#[test]
fn refusal_metrics_exist_from_the_start_for_each_limit() {
    let (mut registry, mut text) = (Registry::default(), String::new());
    let meter = ConnectionMeter::default();
    meter.register(&mut registry);
    let limiter: Arc<ConnectionLimiter<u8>> = ConnectionLimiter::new(meter);
    let _all: Vec<_> = (0..3).map(|_| limiter.admit(1, &LIMITS).unwrap()).collect();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "connections 2",
        "connections_refused_total{by=\"waited_longest\"} 1",
        "connections_refused_total{by=\"per_host\"} 0",
        "connections_refused_total{by=\"per_owner\"} 0",
        "connections_refused_total{by=\"max_connections\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}
