using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Chat;

/// <summary>Writes conversations as a token file and the file of their messages beside it, both aside until complete. Not safe for
/// concurrent use.</summary>
public sealed class ChatFileWriter : IDisposable
{
    private readonly string _path;
    private readonly TokenFileWriter _tokens;
    private readonly AsideFile _messages;
    private readonly List<long> _firstMessages = [];
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private byte[] _spans = new byte[1024];
    private long _messageCount;

    /// <param name="path">the token file; its messages are beside it under the same name and .messages</param>
    /// <param name="vocabularySize">ids are below it</param>
    /// <param name="tokenizerHash"><see cref="Tokenization.Tokenizer.Hash"/></param>
    public ChatFileWriter(string path, int vocabularySize, string tokenizerHash)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        _path = path;
        _tokens = new TokenFileWriter(path, vocabularySize, tokenizerHash);
        try
        {
            _messages = new AsideFile(ChatFileLayout.PathFor(path));
            _messages.Stream.Write(new byte[ChatFileLayout.HeaderBytes]);
        }
        catch
        {
            _tokens.Dispose();
            throw;
        }
    }

    /// <summary>Adds a conversation.</summary>
    /// <param name="textBytes">UTF-8 bytes of its texts</param>
    /// <exception cref="ArgumentException">An id is not in the vocabulary; nothing of the conversation is written.</exception>
    public void Append(EncodedConversation conversation, long textBytes)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        _tokens.Append(conversation.Tokens, textBytes);
        int bytes = conversation.Messages.Length * ChatFileLayout.MessageBytes;
        if (_spans.Length < bytes) _spans = new byte[bytes];
        for (int i = 0; i < conversation.Messages.Length; i++) ChatFileLayout.WriteMessage(conversation.Messages[i], _spans.AsSpan(i * ChatFileLayout.MessageBytes));
        _firstMessages.Add(_messageCount);
        _messageCount += conversation.Messages.Length;
        Write(_spans.AsSpan(0, bytes));
    }

    /// <summary>Adds all conversations of another file of the same tokenizer.</summary>
    public void Append(ChatFile part)
    {
        ArgumentNullException.ThrowIfNull(part);
        for (long i = 0; i < part.Count; i++) Append(part[i], i == 0 ? part.Tokens.TextBytes : 0);
    }

    /// <summary>UTF-8 bytes of the texts of messages.</summary>
    public static long TextBytes(IReadOnlyList<ChatMessage> messages) =>
        messages.Sum(message => (long)Encoding.UTF8.GetByteCount(message.Content) + message.ToolCalls.Sum(Encoding.UTF8.GetByteCount));

    /// <summary>Flushes both files to the disk and gives them their names: the tokens first, whose checksum the messages carry, so that two that
    /// do not belong together are never taken for a pair.</summary>
    public void Complete()
    {
        _tokens.Complete();
        byte[] checksum;
        using (TokenFile tokens = TokenFile.Open(_path)) checksum = tokens.Checksum.ToArray();
        ChatFileLayout layout = new(_firstMessages.Count, _messageCount, checksum, new byte[SHA256.HashSizeInBytes]);
        // The format is little-endian, and so is every machine that this runs on (linux-x64).
        Write(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(_firstMessages)));
        _hash.AppendData(layout.WithoutChecksum());
        _messages.Stream.Position = 0;
        _messages.Stream.Write((layout with { Checksum = _hash.GetHashAndReset() }).Write());
        _messages.Complete();
    }

    /// <summary>Without <see cref="Complete"/> before it, there is no file.</summary>
    public void Dispose()
    {
        _tokens.Dispose();
        _messages.Dispose();
        _hash.Dispose();
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        _messages.Stream.Write(bytes);
        _hash.AppendData(bytes);
    }
}
