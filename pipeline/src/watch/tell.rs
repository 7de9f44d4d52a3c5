//! Telling what waits: each way, and each receiver of mails, has a queue of its own, and is told a message at a time.
//!
//! What was told is written down before the next message goes, where there is a lake that can be written. A mail goes in one to all who
//! wait for the same events; whom the mail server refuses keeps the others from nothing, and is tried again by the next
//! round:
//!
//! - refused for now (4yz: a full box, a server that greets strangers late), their events wait, for [`PATIENCE_US`] at
//!   most; then they go, which is told in the log and by the next mail that is taken;
//! - refused for good (5yz), their events go at once where somebody else has them, and wait where nobody has.
//!
//! Where a server refuses a mail as a whole that goes to several, it is sent to each alone: it may mean one of them.

use sha2::{Digest, Sha256};
use tjern_lake::Lake;

use super::alert::{Change, Event};
use super::look;
use super::mail::smtp::{self, Refusal, SmtpError};
use super::mail::{Address, MailSettings, message};
use super::round::WatchError;
use super::settings::WatchSettings;
use super::state::{Queue, State};
use super::webhook;
use crate::jobs::record::Moment;

/// The most events in one message.
pub(super) const MESSAGE_MAX: usize = 200;

/// For so long a receiver is tried again that is refused for now: as long as mail servers try it (RFC 5321, section 4.5.4.1).
pub(super) const PATIENCE_US: i64 = 5 * 24 * 3_600 * 1_000_000;

/// The names of the ways of telling, in the state. Of mails there is one for each receiver ([`Address::way`]).
pub(super) const WEBHOOK: &str = "webhook";
pub(super) const MAIL: &str = "mail";

/// The ways of telling that are configured.
pub(super) fn ways(settings: &WatchSettings) -> Vec<String> {
    let mails = settings.mail.iter().flat_map(|mail| mail.section.to.iter().map(Address::way));
    let mut ways: Vec<String> = settings.webhook.iter().map(|_| WEBHOOK.to_owned()).chain(mails).collect();
    ways.sort();
    ways.dedup();
    ways
}

/// Empties the queues, as far as that can be done. Returns how many events were told, each message counted.
pub(super) async fn tell(
    settings: &WatchSettings,
    lake: Option<&Lake>,
    state: &mut State,
    now_us: i64,
) -> Result<usize, WatchError> {
    let mut telling = Telling { settings, lake, state, now_us, told: 0, why: Vec::new() };
    telling.webhook().await?;
    if let Some(mail) = &settings.mail {
        telling.mails(mail).await?;
    }
    let Telling { told, why, .. } = telling;
    if why.is_empty() {
        return Ok(told);
    }
    let events = state.queues.values().map(|queue| queue.events.len()).sum();
    Err(WatchError::Untold { events, why: why.join("; ") })
}

struct Telling<'a> {
    settings: &'a WatchSettings,
    lake: Option<&'a Lake>,
    state: &'a mut State,
    now_us: i64,
    told: usize,
    why: Vec<String>,
}

impl Telling<'_> {
    async fn webhook(&mut self) -> Result<(), WatchError> {
        let Some(hook) = &self.settings.webhook else { return Ok(()) };
        while let Some((events, dropped)) = self.first_of(WEBHOOK) {
            let text = text(&events, dropped, self.settings);
            if let Err(error) = webhook::post(hook, self.settings.lake.url().as_str(), &text, &events).await {
                self.why.push(error.to_string());
                break;
            }
            self.told += events.len();
            self.was_told(WEBHOOK, &events);
            self.write().await?;
        }
        Ok(())
    }

    async fn mails(&mut self, mail: &MailSettings) -> Result<(), WatchError> {
        let mut left: Vec<&Address> = Vec::new();
        for to in &mail.section.to {
            if !left.contains(&to) {
                left.push(to);
                self.let_go(to);
            }
        }
        let mut is_alone = false;
        while let Some((group, events, dropped)) = self.group(&left, is_alone) {
            let failed = match self.mail(mail, &group, &events, dropped).await {
                Ok(refusals) => self.was_mailed(&mail.section.to, &group, &events, refusals),
                // It may mean one of them.
                Err(SmtpError::Refused { word: "DATA" | "the message", .. }) if group.len() > 1 => {
                    is_alone = true;
                    continue;
                }
                Err(error) => {
                    self.why.push(error.to_string());
                    group
                }
            };
            left.retain(|to| !failed.contains(to));
            self.write().await?;
        }
        Ok(())
    }

    /// The first receiver for whom events wait, with all others who wait for the same ones; alone, if it is to be told alone.
    fn group<'b>(&self, left: &[&'b Address], is_alone: bool) -> Option<(Vec<&'b Address>, Vec<Event>, u64)> {
        let waits = |to: &Address| self.first_of(&to.way());
        let (first, (events, dropped)) = left.iter().find_map(|to| Some((*to, waits(to)?)))?;
        let is_same = |to: &Address| waits(to).is_some_and(|(others, gone)| gone == dropped && others == events);
        let group = if is_alone { vec![first] } else { left.iter().copied().filter(|to| is_same(to)).collect() };
        Some((group, events, dropped))
    }

    async fn mail(
        &self,
        mail: &MailSettings,
        to: &[&Address],
        events: &[Event],
        dropped: u64,
    ) -> Result<Vec<Refusal>, SmtpError> {
        let hash = events.iter().fold(Sha256::new(), |hash, event| hash.chain_update(&event.id));
        let id: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let text = text(events, dropped, self.settings);
        let message = message::message(&mail.section, &subject(events), &text, &id, self.now_us);
        smtp::send(mail, to, &message).await
    }

    /// Takes what became of a mail. Returns those who are not told in this round.
    fn was_mailed<'b>(
        &mut self,
        all: &[Address],
        group: &[&'b Address],
        events: &[Event],
        refusals: Vec<Refusal>,
    ) -> Vec<&'b Address> {
        let is_refused = |to: &Address| refusals.iter().any(|refusal| refusal.to == *to);
        let taken: Vec<_> = group.iter().filter(|to| !is_refused(to)).collect();
        self.told += if taken.is_empty() { 0 } else { events.len() };
        taken.iter().for_each(|to| self.was_told(&to.way(), events));
        let mut failed = Vec::new();
        for Refusal { to, reply, is_for_good } in &refusals {
            if *is_for_good && self.others_know(all, to, events) {
                tracing::warn!(
                    receiver = %to,
                    "a mail went to the others only: the mail server refused this receiver: {reply}; hint: `to` in [watch.mail]"
                );
                self.was_told(&to.way(), events);
                continue;
            }
            self.why.push(format!("the mail server refused `{to}`: {reply}"));
            if let (false, Some(queue)) = (*is_for_good, self.state.queues.get_mut(&to.way())) {
                queue.refused_since.get_or_insert(Moment(self.now_us));
            }
            failed.extend(group.iter().copied().filter(|one| *one == to));
        }
        failed
    }

    /// Whether somebody else was told these events.
    fn others_know(&self, all: &[Address], to: &Address, events: &[Event]) -> bool {
        let knows = |other: &Address| {
            let queue = self.state.queues.get(&other.way());
            queue.is_none_or(|queue| !events.iter().any(|event| queue.events.contains(event)))
        };
        all.iter().any(|other| other != to && knows(other))
    }

    /// Lets go of what a receiver who is refused for now was to be told too long ago.
    fn let_go(&mut self, to: &Address) {
        let Some(queue) = self.state.queues.get_mut(&to.way()) else { return };
        let before_us = self.now_us.saturating_sub(PATIENCE_US);
        let is_over = |moment: Moment| moment.0 <= before_us;
        let Some(since) = queue.refused_since.filter(|since| is_over(*since)) else { return };
        let count = queue.events.len();
        queue.events.retain(|event| !is_over(event.until.unwrap_or(event.since)));
        let gone = count - queue.events.len();
        if gone > 0 {
            queue.dropped = queue.dropped.saturating_add(u64::try_from(gone).unwrap_or(u64::MAX));
            tracing::error!(
                receiver = %to, events = gone, %since,
                "the mail server refuses this receiver for days: what they were to be told goes; hint: `to` in [watch.mail]"
            );
        }
    }

    /// The events of the next message on a way, and how many had to go before.
    fn first_of(&self, way: &str) -> Option<(Vec<Event>, u64)> {
        let queue = self.state.queues.get(way).filter(|queue| !queue.events.is_empty())?;
        Some((queue.events.iter().take(MESSAGE_MAX).cloned().collect(), queue.dropped))
    }

    fn was_told(&mut self, way: &str, events: &[Event]) {
        if let Some(queue) = self.state.queues.get_mut(way) {
            queue.events.drain(..events.len().min(queue.events.len()));
            *queue = Queue { events: std::mem::take(&mut queue.events), ..Queue::default() };
        }
    }

    async fn write(&self) -> Result<(), WatchError> {
        match self.lake {
            Some(lake) => Ok(self.state.write(lake).await?),
            None => Ok(()),
        }
    }
}

fn subject(events: &[Event]) -> String {
    let begun = events.iter().filter(|event| event.change == Change::Begun).count();
    match events {
        [event] if begun == 1 => format!("Tjern: {}: {}", event.kind.as_str(), event.subject),
        [event] => format!("Tjern: over: {}: {}", event.kind.as_str(), event.subject),
        _ => format!("Tjern: {begun} begun, {} over", events.len() - begun),
    }
}

/// What is told, for people: a line an event.
fn text(events: &[Event], dropped: u64, settings: &WatchSettings) -> String {
    let mut text = String::new();
    for event in events {
        let moment = event.until.filter(|_| event.change == Change::Ended).unwrap_or(event.since);
        let when = look::local(moment.0, &settings.timezone);
        let word = if event.change == Change::Begun { "BEGUN" } else { "OVER " };
        text.push_str(&format!("{word} {when}  {}\n", event.text));
    }
    if dropped > 0 {
        text.push_str(&format!("{dropped} older events had to go: nobody could be told of them\n"));
    }
    text.push_str(&format!("\nlake: {}\nThis is no safety alarm and no medical device.\n", settings.lake));
    text
}

#[cfg(test)]
mod tests;
