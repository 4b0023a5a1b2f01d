using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data;

/// <summary>The ids of a corpus, memory-mapped: opening costs nothing, however large. Safe for concurrent reading.</summary>
public sealed class TokenFile : IDisposable
{
    private const int ChunkIds = 4096, ChunkBytes = 1 << 20;
    private const string Cure = "prepare it again";

    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private readonly SafeMemoryMappedViewHandle _bytes;
    private readonly TokenFileLayout _layout;

    private TokenFile(string path, MemoryMappedFile map, TokenFileLayout layout)
    {
        Path = path;
        _map = map;
        _layout = layout;
        _view = map.CreateViewAccessor(0, layout.FileBytes, MemoryMappedFileAccess.Read);
        _bytes = _view.SafeMemoryMappedViewHandle;
    }

    public string Path { get; }

    /// <summary>Number of tokens.</summary>
    public long Count => _layout.Count;

    public int VocabularySize => _layout.VocabularySize;

    /// <summary><see cref="Tokenization.Tokenizer.Hash"/> of the tokenizer that made the ids.</summary>
    public string TokenizerHash => _layout.TokenizerHash;

    public long DocumentCount => _layout.Documents;

    /// <summary>UTF-8 bytes of the text that the tokens came from, end-of-text tokens not counted: what bits per byte are measured against.</summary>
    public long TextBytes => _layout.TextBytes;

    /// <summary>SHA-256 of the content, as its header has it.</summary>
    internal ReadOnlySpan<byte> Checksum => _layout.Checksum;

    /// <summary>Opens a token file after checking its header, its length and its document index (the ids only in <see cref="Verify"/>).</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="InvalidDataException">It is damaged or no token file; one sentence with file, reason and cure.</exception>
    public static TokenFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!File.Exists(path)) throw new FileNotFoundException($"The token file {path} does not exist; prepare the data first.", path);
        FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, bufferSize: 0);
        TokenFile? file = null;
        try
        {
            byte[] header = new byte[TokenFileLayout.HeaderBytes];
            int read = stream.ReadAtLeast(header, header.Length, throwOnEndOfStream: false);
            (TokenFileLayout? layout, string problem) = TokenFileLayout.Read(header.AsSpan(0, read), stream.Length);
            if (layout is null) throw Damaged(path, problem);
            MemoryMappedFile map = MemoryMappedFile.CreateFromFile(stream, mapName: null, layout.FileBytes, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            file = new TokenFile(path, map, layout);
            file.CheckIndex();
            return file;
        }
        catch
        {
            file?.Dispose();
            stream.Dispose();
            throw;
        }
    }

    /// <summary>Copies the ids from an offset on.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Offset and length reach beyond the tokens.</exception>
    public void Read(long offset, Span<int> into)
    {
        if (offset < 0 || offset > Count - into.Length)
            throw new ArgumentOutOfRangeException(nameof(offset), offset, $"{into.Length} tokens from {offset} on are not within the {Count} tokens of {Path}.");
        ulong at = (ulong)(TokenFileLayout.HeaderBytes + (offset * _layout.Width));
        if (_layout.Width == sizeof(uint))
        {
            _bytes.ReadSpan(at, into);
            return;
        }
        Span<ushort> chunk = stackalloc ushort[Math.Min(ChunkIds, into.Length)];
        for (int done = 0; done < into.Length; done += chunk.Length)
        {
            chunk = chunk[..Math.Min(chunk.Length, into.Length - done)];
            _bytes.ReadSpan(at + ((ulong)done * sizeof(ushort)), chunk);
            for (int i = 0; i < chunk.Length; i++) into[done + i] = chunk[i];
        }
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
    public (long Start, int Length) Document(long number)
    {
        if (number < 0 || number >= DocumentCount) throw new ArgumentOutOfRangeException(nameof(number), number, $"The document {number} is not within the {DocumentCount} documents of {Path}.");
        long start = Start(number);
        return (start, checked((int)((number + 1 < DocumentCount ? Start(number + 1) : Count) - start)));
    }

    /// <summary>Reads everything: compares the checksum and checks that every id is in the vocabulary. About a second for each gigabyte.</summary>
    /// <exception cref="InvalidDataException">The content is damaged; one sentence with file, reason and cure.</exception>
    public void Verify()
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] chunk = new byte[ChunkBytes];
        for (long at = TokenFileLayout.HeaderBytes; at < _layout.FileBytes; at += chunk.Length)
        {
            Span<byte> part = chunk.AsSpan(0, (int)Math.Min(chunk.Length, _layout.FileBytes - at));
            _bytes.ReadSpan((ulong)at, part);
            hash.AppendData(part);
        }
        hash.AppendData(_layout.WithoutChecksum());
        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(_layout.Checksum)) throw Damaged(Path, "its content does not match its checksum");
        int[] ids = new int[ChunkIds];
        for (long at = 0; at < Count; at += ids.Length)
        {
            Span<int> part = ids.AsSpan(0, (int)Math.Min(ids.Length, Count - at));
            Read(at, part);
            foreach (int id in part)
                if ((uint)id >= (uint)VocabularySize) throw Damaged(Path, $"it holds the id {(uint)id}, which is not in its vocabulary of {VocabularySize} tokens");
        }
    }

    public void Dispose()
    {
        _view.Dispose();
        _map.Dispose();
    }

    private void CheckIndex()
    {
        if (Count > 0 && DocumentCount == 0) throw Damaged(Path, "its document index is empty");
        long[] starts = new long[ChunkIds];
        long before = 0;
        for (long at = 0; at < DocumentCount; at += starts.Length)
        {
            Span<long> part = starts.AsSpan(0, (int)Math.Min(starts.Length, DocumentCount - at));
            _bytes.ReadSpan((ulong)(_layout.IndexAt + (at * sizeof(long))), part);
            if (at == 0 && part[0] != 0) throw Damaged(Path, "its first document does not start at its first token");
            foreach (long start in part)
            {
                if (start < before || start > Count) throw Damaged(Path, "its document index is not in order");
                before = start;
            }
        }
    }

    private long Start(long document)
    {
        long start = 0;
        _bytes.ReadSpan((ulong)(_layout.IndexAt + (document * sizeof(long))), MemoryMarshal.CreateSpan(ref start, 1));
        return start;
    }

    private static InvalidDataException Damaged(string path, string problem) => new($"The token file {path} cannot be used: {problem}; {Cure}.");
}
