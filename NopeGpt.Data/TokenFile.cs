using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data;

/// <summary>The ids of a corpus, read where they lie: opening costs the same however large the file is. Safe for concurrent reading.</summary>
/// <remarks>It is read with pread and not mapped: a file that is cut short or cannot be read then gives an error instead of ending the process.</remarks>
public sealed class TokenFile : IDisposable
{
    /// <summary>Indexes of up to so many documents are checked when the file is opened, greater ones where they are used.</summary>
    private const int CheckedDocuments = 1 << 16;

    private const int ChunkIds = 4096, ChunkBytes = 1 << 20;
    private const string Cure = "prepare it again";

    private readonly SafeFileHandle _handle;
    private readonly TokenFileLayout _layout;
    private readonly long _idsAt;

    private TokenFile(string path, SafeFileHandle handle, TokenFileLayout layout, bool raw)
    {
        (Path, _handle, _layout, IsRaw) = (path, handle, layout, raw);
        _idsAt = raw ? 0 : TokenFileLayout.HeaderBytes;
    }

    public string Path { get; }

    /// <summary>True for ids without header, index and checksum.</summary>
    public bool IsRaw { get; }

    /// <summary>Number of tokens.</summary>
    public long Count => _layout.Count;

    public int VocabularySize => _layout.VocabularySize;

    /// <summary><see cref="Tokenizer.Hash"/> of the tokenizer that made the ids.</summary>
    public string TokenizerHash => _layout.TokenizerHash;

    /// <summary>Number of documents; a raw file counts as one.</summary>
    public long DocumentCount => _layout.Documents;

    /// <summary>UTF-8 bytes of the text that the tokens came from, end-of-text tokens not counted: what bits per byte are measured against. 0 for a raw file.</summary>
    public long TextBytes => _layout.TextBytes;

    /// <summary>Where each document's end-of-text token stands. Files that were made before this was noted have it behind.</summary>
    public EndOfText EndOfText => _layout.EndOfText;

    /// <summary>The version of the format; 0 for a raw file.</summary>
    public int FormatVersion => IsRaw ? 0 : TokenFileLayout.Version;

    /// <summary>Bytes that an id takes: 2 or 4.</summary>
    public int IdBytes => _layout.Width;

    /// <summary>SHA-256 of the content in 64 lower-case hexadecimal digits, as its header has it; empty for a raw file.</summary>
    public string Sha256 => Convert.ToHexStringLower(_layout.Checksum);

    /// <summary>Whether a file begins as token files with a header do.</summary>
    public static bool IsTokenFile(string path)
    {
        Span<byte> first = stackalloc byte[TokenFileLayout.Magic.Length];
        using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        return file.ReadAtLeast(first, first.Length, throwOnEndOfStream: false) == first.Length && first.SequenceEqual(TokenFileLayout.Magic);
    }

    /// <summary>SHA-256 of the content, as its header has it.</summary>
    internal ReadOnlySpan<byte> Checksum => _layout.Checksum;

    /// <summary>Opens a token file after checking its header, its length and, where it is not very long, its document index (the ids as they are read, and
    /// everything in <see cref="Verify"/>).</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">It is damaged or no token file; one sentence with file, reason and cure.</exception>
    public static TokenFile Open(string path)
    {
        SafeFileHandle handle = OpenHandle(path);
        try
        {
            byte[] header = new byte[TokenFileLayout.HeaderBytes];
            (TokenFileLayout? layout, string problem) = TokenFileLayout.Read(header.AsSpan(0, Fill(handle, header, 0)), RandomAccess.GetLength(handle));
            if (layout is null) throw Damaged(path, problem);
            TokenFile file = new(path, handle, layout, raw: false);
            file.CheckIndexEnds();
            if (layout.Documents <= CheckedDocuments) file.CheckIndex();
            return file;
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Opens a file of nothing but uint16 ids, little-endian, such as nanoGPT's train.bin and val.bin.</summary>
    /// <param name="path">the file</param>
    /// <param name="vocabularySize">ids are below it; at most 65,536</param>
    /// <param name="tokenizerHash"><see cref="Tokenizer.Hash"/> of the tokenizer that made the ids, which the file does not tell</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">It is no such file; one sentence with file, reason and cure.</exception>
    /// <exception cref="ArgumentException">The vocabulary has too many tokens for two bytes.</exception>
    public static TokenFile OpenRaw(string path, int vocabularySize, string tokenizerHash)
    {
        ArgumentNullException.ThrowIfNull(tokenizerHash);
        if (TokenFileLayout.Problem(vocabularySize, tokenizerHash) is { } wrong) throw new ArgumentException(wrong, nameof(vocabularySize));
        if (vocabularySize > TokenFileLayout.WidestNarrow)
            throw new ArgumentException($"The vocabulary size is {vocabularySize}, and a raw file of ids of two bytes can have {TokenFileLayout.WidestNarrow} at most: prepare the text with this tokenizer instead.", nameof(vocabularySize));
        SafeFileHandle handle = OpenHandle(path);
        try
        {
            Span<byte> first = stackalloc byte[TokenFileLayout.Magic.Length];
            if (Fill(handle, first, 0) == first.Length && first.SequenceEqual(TokenFileLayout.Magic))
                throw new InvalidDataException($"The file {path} is a token file with a header, not a raw one: open it as such.");
            long bytes = RandomAccess.GetLength(handle);
            if (bytes % sizeof(ushort) != 0)
                throw new InvalidDataException($"The raw token file {path} cannot be used: it has {bytes} bytes, an odd number, and every id takes two; write it again as uint16.");
            TokenFileLayout layout = new(vocabularySize, bytes / sizeof(ushort), bytes > 0 ? 1 : 0, 0, tokenizerHash, EndOfText.None, []);
            return new TokenFile(path, handle, layout, raw: true);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Checks that a tokenizer is the one that made the ids.</summary>
    /// <returns>The tokenizer, with the chat markers where the ids were made with them: a published encoding's file does not keep them.</returns>
    /// <exception cref="InvalidDataException">It is another; one sentence with both and the cure.</exception>
    public Tokenizer CheckTokenizer(Tokenizer tokenizer, string from)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        if (tokenizer.Hash == TokenizerHash) return tokenizer;
        if (tokenizer.WithChatMarkers() is { } chat && chat.Hash == TokenizerHash) return chat;
        throw new InvalidDataException($"The token file {Path} was made with another tokenizer ({TokenizerHash[..Math.Min(12, TokenizerHash.Length)]}…, {VocabularySize} tokens) than {from} "
            + $"({tokenizer.Hash[..12]}…, {tokenizer.VocabularySize} tokens): restore the tokenizer that made it, or prepare the data again with this one.");
    }

    /// <summary>Copies the ids from an offset on.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Offset and length reach beyond the tokens.</exception>
    /// <exception cref="InvalidDataException">An id is not in the vocabulary, or the file has become shorter; one sentence with file, place, reason and cure.</exception>
    public void Read(long offset, Span<int> into)
    {
        if (offset < 0 || offset > Count - into.Length)
            throw new ArgumentOutOfRangeException(nameof(offset), offset, $"{into.Length} tokens from {offset} on are not within the {Count} tokens of {Path}.");
        long at = _idsAt + (offset * _layout.Width);
        if (_layout.Width == sizeof(uint)) ReadExactly(MemoryMarshal.AsBytes(into), at);
        else
        {
            Span<ushort> chunk = stackalloc ushort[Math.Min(ChunkIds, into.Length)];
            for (int done = 0; done < into.Length; done += chunk.Length)
            {
                chunk = chunk[..Math.Min(chunk.Length, into.Length - done)];
                ReadExactly(MemoryMarshal.AsBytes(chunk), at + ((long)done * sizeof(ushort)));
                Ids.Widen(chunk, into[done..]);
            }
        }
        if (Ids.AreBelow(into, VocabularySize)) return;
        int wrong = 0;
        while ((uint)into[wrong] < (uint)VocabularySize) wrong++;
        throw Damaged(Path, $"its token {offset + wrong} (document {DocumentAt(offset + wrong)}) is the id {(uint)into[wrong]}, which is not in its vocabulary of {VocabularySize} tokens",
            IsRaw ? "give the vocabulary of the tokenizer that made it" : Cure);
    }

    /// <summary>The number of the document that the token at a position belongs to.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such position.</exception>
    public long DocumentAt(long position)
    {
        if (position < 0 || position >= Count) throw new ArgumentOutOfRangeException(nameof(position), position, $"The position {position} is not within the {Count} tokens of {Path}.");
        // The last document that starts at or before the position; empty documents before it start there too.
        long low = 0, high = DocumentCount - 1;
        while (low < high)
        {
            long middle = low + ((high - low + 1) / 2);
            if (Start(middle) <= position) low = middle;
            else high = middle - 1;
        }
        return low;
    }

    /// <summary>Where the tokens of a document are.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such document.</exception>
    /// <exception cref="InvalidDataException">The document index is damaged.</exception>
    public (long Start, int Length) Document(long number)
    {
        if (number < 0 || number >= DocumentCount) throw new ArgumentOutOfRangeException(nameof(number), number, $"The document {number} is not within the {DocumentCount} documents of {Path}.");
        Span<long> starts = stackalloc long[2];
        Starts(number, starts);
        return (starts[0], checked((int)(starts[1] - starts[0])));
    }

    /// <summary>The positions of the first tokens of documents from one on; one behind the last document is the number of tokens.</summary>
    /// <exception cref="InvalidDataException">They are not in order.</exception>
    internal void Starts(long first, Span<long> into)
    {
        int known = (int)Math.Min(into.Length, DocumentCount - first);
        if (IsRaw) into[..known].Clear();
        else ReadExactly(MemoryMarshal.AsBytes(into[..known]), _layout.IndexAt + (first * sizeof(long)));
        into[known..].Fill(Count);
        long before = 0;
        foreach (long start in into)
        {
            if (start < before || start > Count) throw Damaged(Path, "its document index is not in order");
            before = start;
        }
    }

    /// <summary>Reads everything: compares the checksum, and checks the document index and that every id is in the vocabulary. About a second for each gigabyte.</summary>
    /// <exception cref="InvalidDataException">The content is damaged; one sentence with file, reason and cure.</exception>
    public void Verify() => Verify(CancellationToken.None);

    /// <summary>As <see cref="Verify()"/>, unless cancelled.</summary>
    public void Verify(CancellationToken cancel)
    {
        if (!IsRaw)
        {
            using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            byte[] chunk = new byte[Math.Min(ChunkBytes, _layout.FileBytes)];
            for (long at = TokenFileLayout.HeaderBytes; at < _layout.FileBytes; at += chunk.Length)
            {
                cancel.ThrowIfCancellationRequested();
                Span<byte> part = chunk.AsSpan(0, (int)Math.Min(chunk.Length, _layout.FileBytes - at));
                ReadExactly(part, at);
                hash.AppendData(part);
            }
            hash.AppendData(_layout.WithoutChecksum());
            if (!hash.GetHashAndReset().AsSpan().SequenceEqual(_layout.Checksum)) throw Damaged(Path, "its content does not match its checksum");
            CheckIndex();
        }
        int[] ids = new int[Math.Min(ChunkBytes / sizeof(int), Count)];
        for (long at = 0; at < Count; at += ids.Length)
        {
            cancel.ThrowIfCancellationRequested();
            Read(at, ids.AsSpan(0, (int)Math.Min(ids.Length, Count - at)));
        }
    }

    public void Dispose() => _handle.Dispose();

    private static SafeFileHandle OpenHandle(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!File.Exists(path)) throw new FileNotFoundException($"The token file {path} does not exist; prepare the data first.", path);
        return File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
    }

    /// <summary>Reads until the bytes are full or the file ends.</summary>
    /// <returns>bytes that were read</returns>
    internal static int Fill(SafeFileHandle handle, Span<byte> into, long at)
    {
        int done = 0;
        for (int read; done < into.Length && (read = RandomAccess.Read(handle, into[done..], at + done)) > 0;) done += read;
        return done;
    }

    private void ReadExactly(Span<byte> into, long at)
    {
        if (Fill(_handle, into, at) < into.Length) throw Damaged(Path, "it has become shorter since it was opened", "restore it or " + Cure);
    }

    private void CheckIndexEnds()
    {
        if (DocumentCount == 0 && Count > 0) throw Damaged(Path, "its document index is empty");
        if (DocumentCount == 0) return;
        if (Start(0) != 0) throw Damaged(Path, "its first document does not start at its first token");
        Span<long> last = stackalloc long[1];
        Starts(DocumentCount - 1, last);
    }

    private void CheckIndex()
    {
        long[] starts = new long[ChunkIds + 1];
        // One more than goes on, so that the order is seen across the chunks.
        for (long at = 0; at < DocumentCount; at += ChunkIds) Starts(at, starts.AsSpan(0, (int)Math.Min(starts.Length, DocumentCount - at + 1)));
    }

    private long Start(long document)
    {
        if (IsRaw) return 0;
        long start = 0;
        ReadExactly(MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref start, 1)), _layout.IndexAt + (document * sizeof(long)));
        return start;
    }

    private static InvalidDataException Damaged(string path, string problem, string cure = Cure) => new($"The token file {path} cannot be used: {problem}; {cure}.");
}
