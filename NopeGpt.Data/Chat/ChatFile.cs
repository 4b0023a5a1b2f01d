using System.Buffers;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace NopeGpt.Data.Chat;

/// <summary>Conversations on disk, whole and unlabelled: a token file with a document for each, and beside it where their messages are.
/// What is a label, what is too long and what is packed is decided when reading, so that no setting of training needs the preparation
/// again. Safe for concurrent reading.</summary>
public sealed class ChatFile : IDisposable
{
    private const int ChunkBytes = 1 << 20;
    private const string Cure = "prepare the conversations again";

    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly ChatFileLayout _layout;
    private readonly string _messagesPath;

    private ChatFile(TokenFile tokens, MemoryMappedFile map, ChatFileLayout layout, string messagesPath)
    {
        (Tokens, _map, _layout, _messagesPath) = (tokens, map, layout, messagesPath);
        _view = map.CreateViewAccessor(0, layout.FileBytes, MemoryMappedFileAccess.Read);
    }

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
        FileStream? stream = null;
        ChatFile? file = null;
        try
        {
            string messagesPath = ChatFileLayout.PathFor(path);
            if (!File.Exists(messagesPath)) throw new FileNotFoundException($"The token file {path} holds documents, not conversations: {messagesPath} is not there; {Cure}.", messagesPath);
            stream = new FileStream(messagesPath, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, bufferSize: 0);
            byte[] header = new byte[ChatFileLayout.HeaderBytes];
            int read = stream.ReadAtLeast(header, header.Length, throwOnEndOfStream: false);
            (ChatFileLayout? layout, string problem) = ChatFileLayout.Read(header.AsSpan(0, read), stream.Length);
            if (layout is null) throw Damaged(messagesPath, problem);
            if (!layout.TokensChecksum.AsSpan().SequenceEqual(tokens.Checksum) || layout.Conversations != tokens.DocumentCount) throw Damaged(messagesPath, $"it belongs to other tokens than those in {path}");
            MemoryMappedFile map = MemoryMappedFile.CreateFromFile(stream, mapName: null, layout.FileBytes, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            file = new ChatFile(tokens, map, layout, messagesPath);
            file.CheckMessages();
            return file;
        }
        catch
        {
            file?.Dispose();
            stream?.Dispose();
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
            _view.SafeMemoryMappedViewHandle.ReadSpan((ulong)at, part);
            hash.AppendData(part);
        }
        hash.AppendData(_layout.WithoutChecksum());
        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(_layout.Checksum)) throw Damaged(_messagesPath, "its content does not match its checksum");
    }

    public void Dispose()
    {
        _view.Dispose();
        _map.Dispose();
        Tokens.Dispose();
    }

    private Span<MessageSpan> Messages(long number)
    {
        long first = FirstMessage(number), count = (number + 1 < Count ? FirstMessage(number + 1) : MessageCount) - first;
        MessageSpan[] messages = new MessageSpan[count];
        Span<byte> bytes = count <= 64 ? stackalloc byte[64 * ChatFileLayout.MessageBytes] : new byte[count * ChatFileLayout.MessageBytes];
        bytes = bytes[..(messages.Length * ChatFileLayout.MessageBytes)];
        _view.SafeMemoryMappedViewHandle.ReadSpan((ulong)(ChatFileLayout.HeaderBytes + (first * ChatFileLayout.MessageBytes)), bytes);
        for (int i = 0; i < messages.Length; i++) messages[i] = ChatFileLayout.ReadMessage(bytes[(i * ChatFileLayout.MessageBytes)..]);
        return messages;
    }

    private long FirstMessage(long number)
    {
        if (number < 0 || number >= Count) throw new ArgumentOutOfRangeException(nameof(number), number, $"The conversation {number} is not within the {Count} conversations of {Path}.");
        long first = 0;
        _view.SafeMemoryMappedViewHandle.ReadSpan((ulong)(_layout.IndexAt + (number * sizeof(long))), MemoryMarshal.CreateSpan(ref first, 1));
        return first;
    }

    /// <summary>Everything that reading relies on, so that a damaged file cannot lead out of its bounds.</summary>
    private void CheckMessages()
    {
        long before = 0;
        for (long i = 0; i < Count; i++)
        {
            long first = FirstMessage(i);
            if (first < before || first > MessageCount || (i == 0 && first != 0)) throw Damaged(_messagesPath, "its index of conversations is not in order");
            before = first;
        }
        for (long i = 0; i < Count; i++)
        {
            int length = Tokens.Document(i).Length, start = -1;
            foreach (MessageSpan message in Messages(i))
            {
                if (message.Start <= start || message.Start >= length || message.Header > length - message.Start) throw Damaged(_messagesPath, $"the messages of conversation {i} are not in order");
                start = message.Start;
            }
        }
        if (Count == 0 && MessageCount > 0) throw Damaged(_messagesPath, "it has messages that belong to no conversation");
    }

    private static InvalidDataException Damaged(string path, string problem) => new($"The file {path} cannot be used: {problem}; {Cure}.");
}
