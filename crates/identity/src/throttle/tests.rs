use super::*;
use proptest::prelude::*;

impl Default for Settings {
    fn default() -> Self {
        Self {
            failures_max: 20,
            window_s: 600,
            delay_max_ms: 2_000,
        }
    }
}

fn throttle() -> Throttle {
    Throttle::new(Settings::default())
}

fn at(seconds: i64) -> Steady {
    Steady::default() + Duration::from_secs(seconds.unsigned_abs())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn turn(delay_ms: u64, lane: Lane) -> Option<Turn> {
    let delay = Duration::from_millis(delay_ms);
    Some(Turn { delay, lane })
}

/// What becomes of an attempt at an account that exists, with a wrong password.
fn guess(throttle: &Throttle, address: IpAddr, account: &str, now: Steady) -> Option<Turn> {
    let attempt = throttle.begin(address, account, now);
    throttle.turn(&attempt, true, now)
}

fn log_in(throttle: &Throttle, address: IpAddr, account: &str, now: Steady) -> Option<Turn> {
    let attempt = throttle.begin(address, account, now);
    let turn = throttle.turn(&attempt, true, now);
    if turn.is_some() {
        throttle.succeeded(&attempt, now);
    }
    turn
}

/// An address that has no allowance left.
fn exhausted(throttle: &Throttle, address: IpAddr, now: Steady) {
    for n in 0..20 {
        guess(throttle, address, &format!("made up {n}"), now);
    }
}

fn beyond(throttle: &Throttle, address: IpAddr, now: Steady) -> Option<RetryAfter> {
    throttle.begin(address, "x", now).beyond
}

#[test]
fn twenty_attempts_are_free_then_the_address_is_answered_late_for_the_window() {
    let throttle = throttle();
    let (guesser, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    for i in 0..20 {
        let attempt = throttle.begin(guesser, &format!("account {i}"), at(i));
        assert_eq!(attempt.beyond, None, "{i}");
        assert_eq!(
            throttle.turn(&attempt, false, at(i)),
            turn(0, Lane::Stranger)
        );
    }
    let refused = beyond(&throttle, guesser, at(20)).unwrap();
    assert_eq!(refused, RetryAfter(TURN));
    assert_eq!(beyond(&throttle, other, at(20)), None);
    assert!(beyond(&throttle, guesser, at(599)).is_some());
    assert_eq!(beyond(&throttle, guesser, at(600)), None);
    assert_eq!(beyond(&throttle, guesser, at(600)), Some(RetryAfter(TURN)));
}

#[test]
fn attempts_count_while_their_passwords_are_being_checked() {
    let throttle = throttle();
    let guesser = ip("192.0.2.1");
    let begun: Vec<_> = (0..300)
        .map(|_| throttle.begin(guesser, "ada", at(0)))
        .collect();
    let free = begun.iter().filter(|attempt| attempt.beyond.is_none());
    assert_eq!(free.count(), 20);
    // One of them was right, one was never tried.
    throttle.succeeded(&begun[7], at(1));
    throttle.untried(&begun[8]);
    assert_eq!(beyond(&throttle, guesser, at(1)), None);
    assert_eq!(beyond(&throttle, guesser, at(1)), None);
    assert!(beyond(&throttle, guesser, at(1)).is_some());
}

#[test]
fn addresses_of_one_customer_count_as_one() {
    let throttle = throttle();
    for i in 0..20 {
        throttle.begin(ip(&format!("2001:db8:0:1::{i}")), "ada", at(0));
        throttle.begin(ip("192.0.2.1"), "ada", at(0));
    }
    assert!(beyond(&throttle, ip("2001:db8:0:1:ffff::1"), at(1)).is_some());
    assert!(beyond(&throttle, ip("2001:db8:0:2::1"), at(1)).is_none());
    assert!(beyond(&throttle, ip("::ffff:192.0.2.1"), at(1)).is_some());
}

#[test]
fn an_account_under_attack_waits_and_its_owner_does_not() {
    let throttle = throttle();
    let (owner, elsewhere) = (ip("192.0.2.1"), ip("192.0.2.2"));
    log_in(&throttle, owner, "ada", at(0));
    for i in 0..40_u32 {
        let address = IpAddr::from((0x0a00_0000 + i).to_be_bytes());
        let delay_ms = u64::from(i.min(20)) * 100;
        let stranger = guess(&throttle, address, "ada", at(1));
        assert_eq!(stranger, turn(delay_ms, Lane::Stranger));
        let owner = log_in(&throttle, owner, "ada", at(1));
        assert_eq!(owner, turn(0, Lane::Known));
    }
    let later = |seconds| {
        let attempt = throttle.begin(elsewhere, "ada", at(seconds));
        throttle.untried(&attempt);
        throttle.turn(&attempt, true, at(seconds))
    };
    assert_eq!(later(301), turn(1000, Lane::Stranger));
    assert_eq!(later(601), turn(0, Lane::Stranger));
    let other = guess(&throttle, elsewhere, "bob", at(1));
    assert_eq!(other, turn(0, Lane::Stranger));
}

#[test]
fn a_success_is_remembered_for_a_day_at_that_account_alone() {
    let throttle = throttle();
    let owner = ip("192.0.2.1");
    log_in(&throttle, owner, "ada", at(0));
    let day = 24 * 60 * 60;
    let lane = |account, now| guess(&throttle, owner, account, at(now)).unwrap().lane;
    assert_eq!(lane("bob", 0), Lane::Stranger);
    assert_eq!(lane("ada", day - 1), Lane::Known);
    assert_eq!(lane("ada", day), Lane::Stranger);
}

#[test]
fn a_success_does_not_wash_an_address_clean() {
    let throttle = throttle();
    let guesser = ip("192.0.2.1");
    for _ in 0..20 {
        guess(&throttle, guesser, "ada", at(0));
        log_in(&throttle, guesser, "own", at(0));
    }
    assert!(beyond(&throttle, guesser, at(1)).is_some());
}

#[test]
fn only_the_latest_addresses_of_an_account_are_known() {
    let throttle = throttle();
    let address = |i: usize| IpAddr::from([192, 0, 2, i as u8]);
    for i in 0..=KNOWN_ADDRESSES_MAX {
        log_in(&throttle, address(i), "ada", at(i as i64));
    }
    let lane = |i| guess(&throttle, address(i), "ada", at(60)).unwrap().lane;
    assert_eq!(lane(0), Lane::Stranger);
    assert!((1..=KNOWN_ADDRESSES_MAX).all(|i| lane(i) == Lane::Known));
}

#[test]
fn a_guesser_costs_a_neighbour_who_is_known_nothing() {
    let throttle = throttle();
    let shared = ip("192.0.2.1");
    log_in(&throttle, shared, "ada", at(0));
    exhausted(&throttle, shared, at(1));
    for n in 0..1000 {
        guess(&throttle, shared, &format!("made up {n}"), at(2));
        assert_eq!(
            log_in(&throttle, shared, "ada", at(2)),
            turn(0, Lane::Known)
        );
    }
}

#[test]
fn a_newcomer_has_a_turn_beside_any_number_of_guesses() {
    let throttle = throttle();
    let shared = ip("192.0.2.1");
    let guessed = ["bob", "eve", "dan"];
    exhausted(&throttle, shared, at(0));
    for account in guessed {
        guess(&throttle, shared, account, at(1));
    }
    for n in 0..1000 {
        let made_up = throttle.begin(shared, &format!("nobody {n}"), at(5));
        throttle.turn(&made_up, false, at(5));
        guess(&throttle, shared, guessed[n % 3], at(5));
    }
    let newcomer = guess(&throttle, shared, "ada", at(5));
    assert_eq!(newcomer, turn(0, Lane::Suspect));
    // They mistyped. Within the answer's time it is their turn again.
    let again = guess(&throttle, shared, "ada", at(7)).unwrap();
    assert!(again.delay <= TURN && TURN < REFUSED_AFTER, "{again:?}");
}

#[test]
fn many_newcomers_at_once_have_turns_one_after_the_other() {
    let throttle = throttle();
    let shared = ip("192.0.2.1");
    exhausted(&throttle, shared, at(0));
    for n in 0..=16 {
        let account = format!("newcomer {n}");
        let newcomer = log_in(&throttle, shared, &account, at(1));
        assert_eq!(newcomer, turn(n * 125, Lane::Suspect));
    }
    assert_eq!(log_in(&throttle, shared, "one more", at(1)), None);
}

/// How many passwords are tried in ten minutes for one who asks a hundred times a second.
fn tried_in_a_window(account: impl Fn(u64) -> (String, bool)) -> usize {
    let throttle = throttle();
    let guesser = ip("192.0.2.1");
    let tries = (0..60_000_u64).filter(|n| {
        let now = Steady::default() + Duration::from_millis(n * 10);
        let (account, exists) = account(*n);
        let attempt = throttle.begin(guesser, &account, now);
        throttle.turn(&attempt, exists, now).is_some()
    });
    tries.count()
}

#[test]
fn guesses_beyond_the_allowance_are_slowed_down() {
    let at_one = tried_in_a_window(|_| ("ada".into(), true));
    assert!(at_one <= 20 + 300 + 2, "{at_one}");
    let at_some = tried_in_a_window(|n| (format!("user {}", n % 50), true));
    assert!(at_some <= 20 + 50 + 1_200 + 5, "{at_some}");
    let made_up = tried_in_a_window(|n| (format!("made up {n}"), false));
    assert!(made_up <= 20 + 1_200 + 5, "{made_up}");
    assert!(at_one > 300 && made_up > 1_000, "nobody is locked out");
}

#[test]
fn guesses_at_a_known_account_have_an_allowance_and_turns() {
    let throttle = throttle();
    let shared = ip("192.0.2.1");
    log_in(&throttle, shared, "ada", at(0));
    let tried = (0..1000).filter(|_| guess(&throttle, shared, "ada", at(1)).is_some());
    // Those of the address, those of the account there, one turn and one that waits for it.
    assert_eq!(tried.count(), 20 + 20 + 2);
    let owner = log_in(&throttle, shared, "ada", at(5));
    assert_eq!(owner, turn(0, Lane::Suspect));
}

#[test]
fn failures_that_are_no_passwords_count_for_the_address() {
    let throttle = throttle();
    let guesser = ip("192.0.2.1");
    for _ in 0..20 {
        throttle.failed(guesser, at(0)).unwrap();
    }
    assert!(throttle.failed(guesser, at(1)).is_err());
    assert!(beyond(&throttle, guesser, at(1)).is_some());
}

#[test]
fn a_user_has_an_allowance_of_codes_that_right_ones_do_not_take_from() {
    let throttle = throttle();
    for _ in 0..100 {
        throttle.guess("ann", at(0)).unwrap();
        throttle.guessed("ann", at(0));
    }
    let taken = (0..100).filter(|_| throttle.guess("ann", at(1)).is_ok());
    assert_eq!(taken.count(), 20);
    assert!(throttle.guess("ann", at(600)).is_err());
    assert!(throttle.guess("bob", at(2)).is_ok());
    assert!(throttle.guess("ann", at(601)).is_ok());
}

#[test]
fn a_full_table_refuses_nobody_new_and_keeps_whom_it_suspects_most() {
    let throttle = Throttle::with_entries_max(Settings::default(), 80);
    let victim = "ada";
    log_in(&throttle, ip("192.0.2.1"), victim, at(0));
    for i in 0..10_000_u32 {
        let address = IpAddr::from((0x0a00_0000 + i).to_be_bytes());
        if i % 20 == 0 {
            guess(&throttle, address, victim, at(0));
        }
        let attempt = throttle.begin(address, &format!("made up {i}"), at(0));
        assert_eq!(attempt.beyond, None);
    }
    let state = throttle.state.lock();
    assert!(state.begun.entries.len() <= 80 && state.accounts.entries.len() <= 80);
    drop(state);
    assert_eq!(
        guess(&throttle, ip("192.0.2.9"), victim, at(0)),
        turn(2000, Lane::Stranger)
    );
    assert_eq!(
        guess(&throttle, ip("192.0.2.1"), victim, at(0)),
        turn(0, Lane::Known)
    );
}

#[derive(Clone, Debug)]
struct Tried {
    gap_s: i64,
    address: u8,
    account: u8,
    right: bool,
}

fn attempts() -> impl Strategy<Value = Vec<Tried>> {
    let attempt = (0_i64..120, 0_u8..3, 0_u8..3, proptest::bool::weighted(0.1));
    let attempt = attempt.prop_map(|(gap_s, address, account, right)| Tried {
        gap_s,
        address,
        account,
        right,
    });
    proptest::collection::vec(attempt, 1..300)
}

proptest! {
    #[test]
    fn no_window_holds_more_free_failures_than_allowed_and_no_owner_waits(attempts in attempts()) {
        let throttle = throttle();
        let mut now = 0;
        let mut failures: Vec<(u8, i64)> = Vec::new();
        let mut successes: Vec<(u8, u8, i64)> = Vec::new();
        for tried in attempts {
            now += tried.gap_s;
            let address = IpAddr::from([192, 0, 2, tried.address]);
            let account = format!("account {}", tried.account);
            let recent = failures
                .iter()
                .filter(|(who, when)| *who == tried.address && now - when < 600)
                .count();
            let known = successes.iter().any(|(who, whose, when)| {
                (*who, *whose) == (tried.address, tried.account) && now - when < 24 * 3600
            });
            let attempt = throttle.begin(address, &account, at(now));
            let turn = throttle.turn(&attempt, true, at(now));
            prop_assert!(turn.is_none_or(|turn| turn.delay <= Duration::from_secs(2)));
            match (attempt.beyond, turn) {
                (Some(retry), _) => {
                    prop_assert!(recent >= 20, "late after {recent} failures");
                    prop_assert!((1..=600).contains(&retry.seconds()));
                }
                (None, None) => prop_assert!(false, "refused after {recent} failures"),
                (None, Some(turn)) => {
                    prop_assert!(recent < 20, "free after {recent} failures");
                    prop_assert_eq!(turn.lane == Lane::Known, known);
                    prop_assert!(!known || turn.delay.is_zero());
                }
            }
            if turn.is_some() && tried.right {
                throttle.succeeded(&attempt, at(now));
                successes.push((tried.address, tried.account, now));
            } else if attempt.beyond.is_none() {
                failures.push((tried.address, now));
            }
        }
    }

    #[test]
    fn any_name_is_taken(account in ".{0,50}", bits in any::<u128>()) {
        let throttle = throttle();
        let address = IpAddr::from(bits.to_be_bytes());
        guess(&throttle, address, &account, at(0));
        let again = guess(&throttle, address, &account, at(0));
        prop_assert!(again.is_some());
    }
}
