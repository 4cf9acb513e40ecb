//! A client connection that fails if the client does not read a response in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Writes to `S`; fails with [`io::ErrorKind::TimedOut`] if the client has not read all of a response within a time, even if it
/// keeps reading a little.
#[derive(Debug)]
pub(super) struct WriteDeadline<S> {
    stream: S,
    timeout: Duration,
    /// Set while a response is being written.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    /// Clients have `timeout` to read a whole response.
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, deadline: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    /// hyper writes a whole response at once, then what is left of it: the response is complete when nothing is left.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(length)) if *length == bytes.len() => self.deadline = None,
            Poll::Ready(Err(_)) => {}
            _ if self.deadline.is_none() => {
                let mut deadline = Box::pin(sleep_until(Instant::now() + self.timeout));
                // Registers the waker for the deadline.
                let _ = deadline.as_mut().poll(cx);
                self.deadline = Some(deadline);
            }
            _ => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{advance, sleep};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn responses_that_are_not_read_in_time_break_the_connection() {
        let (ours, _theirs) = duplex(10);
        let mut ours = WriteDeadline::new(ours, TIMEOUT);
        ours.write_all(&[0; 10]).await.unwrap();
        let started = Instant::now();
        assert_eq!(ours.write_all(&[0; 10]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reading_does_not_extend_the_deadline() {
        let (ours, mut theirs) = duplex(10);
        let mut ours = WriteDeadline::new(ours, TIMEOUT);
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            loop {
                sleep(Duration::from_secs(1)).await;
                if theirs.read(&mut byte).await.is_ok_and(|read| read == 0) {
                    break;
                }
            }
        });
        let started = Instant::now();
        assert_eq!(ours.write_all(&[0; 1000]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < TIMEOUT + Duration::from_secs(2));
        drop(ours);
        reader.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn each_response_has_its_own_deadline() {
        let (ours, mut theirs) = duplex(10);
        let mut ours = WriteDeadline::new(ours, TIMEOUT);
        for _ in 0..4 {
            let writing = async {
                ours.write_all(&[0; 20]).await.unwrap();
            };
            let reading = async {
                sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut [0; 20]).await.unwrap();
            };
            tokio::join!(writing, reading);
            advance(Duration::from_secs(60)).await;
        }
    }
}
