//! Redis' protocol on one connection: commands out, tokens of replies in.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A piece of a reply; an array is followed by its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    Array(usize),
    Bulk(&'a [u8]),
    Int(i64),
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Nil,
}

/// A connection.
pub struct Resp {
    stream: TcpStream,
    /// Commands that [`Self::flush`] sends.
    pub commands: Vec<u8>,
    replies: Vec<u8>,
}

impl Resp {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, commands: Vec::new(), replies: Vec::new() })
    }

    /// Appends a command.
    pub fn command(&mut self, words: &[&[u8]]) {
        self.array(words.len());
        for word in words {
            self.word(word);
        }
    }

    /// Begins a command of so many words.
    pub fn array(&mut self, words: usize) {
        let _infallible = write!(self.commands, "*{words}\r\n");
    }

    /// Appends a word of a command.
    pub fn word(&mut self, word: &[u8]) {
        let _infallible = write!(self.commands, "${}\r\n", word.len());
        self.commands.extend_from_slice(word);
        self.commands.extend_from_slice(b"\r\n");
    }

    /// Sends what was appended and waits for so many replies.
    ///
    /// # Errors
    /// The connection ends, or a reply is an error.
    pub async fn flush(&mut self, replies: usize) -> Result<Tokens<'_>> {
        self.stream.write_all(&self.commands).await?;
        self.commands.clear();
        self.replies.clear();
        let (mut done, mut end) = (0, 0);
        while done < replies {
            let read = self.stream.read_buf(&mut self.replies).await?;
            ensure!(read > 0, "the connection ended before its reply");
            while done < replies
                && let Some(length) = complete(&self.replies[end..])?
            {
                end += length;
                done += 1;
            }
        }
        ensure!(end == self.replies.len(), "more replies than commands");
        Ok(Tokens { bytes: &self.replies })
    }
}

/// The length of the first reply; none when it is not whole.
///
/// # Errors
/// It is no reply, or an error.
fn complete(bytes: &[u8]) -> Result<Option<usize>> {
    let mut tokens = Tokens { bytes };
    let mut open = 1;
    while open > 0 {
        match tokens.read()? {
            None => return Ok(None),
            Some(Token::Array(items)) => open += items,
            Some(Token::Error(text)) => bail!("Redis answered: {}", String::from_utf8_lossy(text)),
            Some(_) => {}
        }
        open -= 1;
    }
    Ok(Some(bytes.len() - tokens.bytes.len()))
}

/// Reads tokens one after the other.
pub struct Tokens<'a> {
    bytes: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// The next token.
    ///
    /// # Errors
    /// There is none.
    pub fn next(&mut self) -> Result<Token<'a>> {
        self.read()?.context("a reply ended early")
    }

    /// The next token, which is a number.
    ///
    /// # Errors
    /// It is something else.
    pub fn int(&mut self) -> Result<i64> {
        match self.next()? {
            Token::Int(number) => Ok(number),
            other => bail!("not a number: {other:?}"),
        }
    }

    /// The next token, which is a string.
    ///
    /// # Errors
    /// It is something else.
    pub fn bulk(&mut self) -> Result<&'a [u8]> {
        match self.next()? {
            Token::Bulk(bytes) => Ok(bytes),
            other => bail!("not a string: {other:?}"),
        }
    }

    /// The next token, which is an array; 0 items when it is nil.
    ///
    /// # Errors
    /// It is something else.
    pub fn array(&mut self) -> Result<usize> {
        match self.next()? {
            Token::Array(items) => Ok(items),
            Token::Nil => Ok(0),
            other => bail!("not an array: {other:?}"),
        }
    }

    fn read(&mut self) -> Result<Option<Token<'a>>> {
        let Some(end) = memchr::memchr(b'\n', self.bytes) else { return Ok(None) };
        ensure!(end >= 2, "an empty line in a reply");
        let (kind, line) = (self.bytes[0], &self.bytes[1..end - 1]);
        let rest = &self.bytes[end + 1..];
        let token = match kind {
            b'+' => Token::Simple(line),
            b'-' => Token::Error(line),
            b':' => Token::Int(number(line)?),
            b'*' => usize::try_from(number(line)?).map_or(Token::Nil, Token::Array),
            b'$' => {
                let Ok(length) = usize::try_from(number(line)?) else {
                    self.bytes = rest;
                    return Ok(Some(Token::Nil));
                };
                let Some(text) = rest.get(..length).filter(|_| rest.len() >= length + 2) else {
                    return Ok(None);
                };
                self.bytes = &rest[length + 2..];
                return Ok(Some(Token::Bulk(text)));
            }
            other => bail!("no reply begins with {:?}", char::from(other)),
        };
        self.bytes = rest;
        Ok(Some(token))
    }
}

fn number(line: &[u8]) -> Result<i64> {
    std::str::from_utf8(line)?.parse().context("a reply with a broken number")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"*2\r\n$2\r\nab\r\n*3\r\n:-7\r\n$-1\r\n*-1\r\n";

    #[test]
    fn a_reply_is_complete_only_as_a_whole() {
        for end in 0..REPLY.len() {
            assert_eq!(complete(&REPLY[..end]).unwrap(), None, "{end} bytes");
        }
        assert_eq!(complete(REPLY).unwrap(), Some(REPLY.len()));
        let twice = [REPLY, REPLY].concat();
        assert_eq!(complete(&twice).unwrap(), Some(REPLY.len()));
    }

    #[test]
    fn tokens_come_in_order() {
        let mut tokens = Tokens { bytes: REPLY };
        assert_eq!(tokens.array().unwrap(), 2);
        assert_eq!(tokens.bulk().unwrap(), b"ab");
        assert_eq!(tokens.array().unwrap(), 3);
        assert_eq!(tokens.int().unwrap(), -7);
        assert_eq!(tokens.next().unwrap(), Token::Nil);
        assert_eq!(tokens.array().unwrap(), 0);
        tokens.next().unwrap_err();
    }

    #[test]
    fn errors_are_told() {
        let error = complete(b"-OOM no memory\r\n").unwrap_err().to_string();
        assert!(error.contains("OOM no memory"), "{error}");
        complete(b"?\r\n?\r\n").unwrap_err();
    }
}
