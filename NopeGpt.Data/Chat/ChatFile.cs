using System.Buffers;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data.Chat;

/// <summary>Conversations on disk, whole and unlabelled: a token file with a document for each, and beside it where their messages are.
/// What is a label, what is too long and what is packed is decided when reading, so that no setting of training needs the preparation
/// again. Safe for concurrent reading.</summary>
/// <remarks>Both are read with pread and not mapped, as <see cref="TokenFile"/> says.</remarks>
public sealed class ChatFile : IDisposable
{
    private const int ChunkBytes = 1 << 20, ChunkConversations = 1 << 12;
    private const string Cure = "prepare the conversations again";

    private readonly SafeFileHandle _handle;
    private readonly ChatFileLayout _layout;
    private readonly string _messagesPath;

    private ChatFile(TokenFile tokens, SafeFileHandle handle, ChatFileLayout layout, string messagesPath) =>
        (Tokens, _handle, _layout, _messagesPath) = (tokens, handle, layout, messagesPath);

    /// <summary>The ids, a document for each conversation.</summary>
    public TokenFile Tokens { get; }

    public string Path => Tokens.Path;

    /// <summary>Number of conversations.</summary>
    public long Count => _layout.Conversations;

    public long MessageCount => _layout.Messages;

    /// <summary>Opens the two files after checking headers, lengths, indices and that they belong together (the ids only in <see cref="Verify"/>).</summary>
    /// <param name="path">the token file</param>
    /// <exception cref="FileNotFoundException">One of the two is missing.</exception>
    /// <exception cref="InvalidDataException">One is damaged, or they do not belong together; one sentence with file, reason and cure.</exception>
    public static ChatFile Open(string path)
    {
        TokenFile tokens = TokenFile.Open(path);
        SafeFileHandle? handle = null;
        try
        {
            string messagesPath = ChatFileLayout.PathFor(path);
            if (!File.Exists(messagesPath)) throw new FileNotFoundException($"The token file {path} holds documents, not conversations: {messagesPath} is not there; {Cure}.", messagesPath);
            handle = File.OpenHandle(messagesPath, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
            byte[] header = new byte[ChatFileLayout.HeaderBytes];
            (ChatFileLayout? layout, string problem) = ChatFileLayout.Read(header.AsSpan(0, TokenFile.Fill(handle, header, 0)), RandomAccess.GetLength(handle));
            if (layout is null) throw Damaged(messagesPath, problem);
            if (!layout.TokensChecksum.AsSpan().SequenceEqual(tokens.Checksum) || layout.Conversations != tokens.DocumentCount) throw Damaged(messagesPath, $"it belongs to other tokens than those in {path}");
            ChatFile file = new(tokens, handle, layout, messagesPath);
            file.CheckMessages();
            return file;
        }
        catch
        {
            handle?.Dispose();
            tokens.Dispose();
            throw;
        }
    }

    /// <summary>A whole conversation.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such conversation.</exception>
    public EncodedConversation this[long number]
    {
        get
        {
            (long start, int length) = Tokens.Document(number);
            int[] tokens = new int[length];
            Tokens.Read(start, tokens);
            return new EncodedConversation(tokens, [.. Messages(number)]);
        }
    }

    /// <summary>What the options leave of a conversation; its ids are not read.</summary>
    public ChatCut Cut(long number, ChatSampleOptions options) => ChatCut.Of(Messages(number), Tokens.Document(number).Length, options);

    /// <summary>The tokens of every conversation and what the options leave of it, in order, many times faster than one by one.</summary>
    internal IEnumerable<(int Tokens, ChatCut Cut)> Cuts(ChatSampleOptions options) => All().Select(each => (each.Tokens, ChatCut.Of(each.Messages, each.Tokens, options)));

    /// <summary>The sample that the options make of a conversation, into the beginning of the spans, without anything in between.</summary>
    /// <returns>its length</returns>
    internal int ReadSample(long number, ChatSampleOptions options, Span<long> tokens, Span<long> labels)
    {
        ReadOnlySpan<MessageSpan> messages = Messages(number);
        (long start, int total) = Tokens.Document(number);
        int length = ChatCut.Of(messages, total, options).Length;
        int[] ids = ArrayPool<int>.Shared.Rent(length + 1);
        Span<int> read = ids.AsSpan(0, Math.Min(length + 1, total));
        Tokens.Read(start, read);
        for (int i = 0; i < length; i++) tokens[i] = read[i];
        labels[..length].Fill(ChatFormat.IgnoredLabel);
        foreach ((int from, int to) in ChatCut.Ranges(messages, total, length + 1, options.Labels))
            for (int i = from; i < to; i++) labels[i - 1] = read[i];
        ArrayPool<int>.Shared.Return(ids);
        return length;
    }

    /// <summary>Reads everything and compares the checksums of both files, and every id with the vocabulary.</summary>
    /// <exception cref="InvalidDataException">The content is damaged; one sentence with file, reason and cure.</exception>
    public void Verify()
    {
        Tokens.Verify();
        VerifyMessages();
    }

    /// <summary>As <see cref="Verify"/>, for the file of messages only.</summary>
    /// <exception cref="InvalidDataException">The content is damaged; one sentence with file, reason and cure.</exception>
    public void VerifyMessages()
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] chunk = new byte[ChunkBytes];
        for (long at = ChatFileLayout.HeaderBytes; at < _layout.FileBytes; at += chunk.Length)
        {
            Span<byte> part = chunk.AsSpan(0, (int)Math.Min(chunk.Length, _layout.FileBytes - at));
            ReadExactly(part, at);
            hash.AppendData(part);
        }
        hash.AppendData(_layout.WithoutChecksum());
        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(_layout.Checksum)) throw Damaged(_messagesPath, "its content does not match its checksum");
    }

    public void Dispose()
    {
        _handle.Dispose();
        Tokens.Dispose();
    }

    private MessageSpan[] Messages(long number)
    {
        if (number < 0 || number >= Count) throw new ArgumentOutOfRangeException(nameof(number), number, $"The conversation {number} is not within the {Count} conversations of {Path}.");
        Span<long> firsts = stackalloc long[2];
        FirstMessages(number, firsts);
        return Messages(firsts[0], firsts[1]);
    }

    private MessageSpan[] Messages(long first, long end)
    {
        MessageSpan[] messages = new MessageSpan[end - first];
        Span<byte> bytes = messages.Length <= 64 ? stackalloc byte[64 * ChatFileLayout.MessageBytes] : new byte[messages.Length * ChatFileLayout.MessageBytes];
        bytes = bytes[..(messages.Length * ChatFileLayout.MessageBytes)];
        ReadExactly(bytes, ChatFileLayout.HeaderBytes + (first * ChatFileLayout.MessageBytes));
        for (int i = 0; i < messages.Length; i++) messages[i] = ChatFileLayout.ReadMessage(bytes[(i * ChatFileLayout.MessageBytes)..]);
        return messages;
    }

    /// <summary>The numbers of the first messages of conversations from one on; one behind the last conversation is the number of messages.</summary>
    /// <exception cref="InvalidDataException">They are not in order.</exception>
    private void FirstMessages(long conversation, Span<long> into)
    {
        int known = (int)Math.Min(into.Length, Count - conversation);
        ReadExactly(MemoryMarshal.AsBytes(into[..known]), _layout.IndexAt + (conversation * sizeof(long)));
        into[known..].Fill(MessageCount);
        long before = 0;
        foreach (long first in into)
        {
            if (first < before || first > MessageCount) throw Damaged(_messagesPath, "its index of conversations is not in order");
            before = first;
        }
    }

    /// <summary>Tokens and messages of every conversation, in order, read in large pieces.</summary>
    private IEnumerable<(int Tokens, ArraySegment<MessageSpan> Messages)> All()
    {
        long[] firsts = new long[ChunkConversations + 1], starts = new long[ChunkConversations + 1];
        for (long at = 0; at < Count; at += ChunkConversations)
        {
            int conversations = (int)Math.Min(ChunkConversations, Count - at);
            FirstMessages(at, firsts.AsSpan(0, conversations + 1));
            Tokens.Starts(at, starts.AsSpan(0, conversations + 1));
            MessageSpan[] messages = Messages(firsts[0], firsts[conversations]);
            for (int i = 0; i < conversations; i++)
                yield return (checked((int)(starts[i + 1] - starts[i])), new(messages, (int)(firsts[i] - firsts[0]), (int)(firsts[i + 1] - firsts[i])));
        }
    }

    /// <summary>Everything that reading relies on, so that a damaged file cannot lead out of its bounds.</summary>
    private void CheckMessages()
    {
        long messages = 0, number = 0;
        foreach ((int tokens, ArraySegment<MessageSpan> spans) in All())
        {
            int start = -1;
            foreach (MessageSpan message in spans)
            {
                if (message.Start <= start || message.Start >= tokens || message.Header > tokens - message.Start) throw Damaged(_messagesPath, $"the messages of conversation {number} are not in order");
                start = message.Start;
            }
            messages += spans.Count;
            number++;
        }
        if (messages != MessageCount) throw Damaged(_messagesPath, "it has messages that belong to no conversation");
    }

    private void ReadExactly(Span<byte> into, long at)
    {
        if (TokenFile.Fill(_handle, into, at) < into.Length) throw Damaged(_messagesPath, "it has become shorter since it was opened");
    }

    private static InvalidDataException Damaged(string path, string problem) => new($"The file {path} cannot be used: {problem}; {Cure}.");
}
