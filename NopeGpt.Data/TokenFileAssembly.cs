using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data;

/// <summary>A token file in the making, shard by shard. In a folder beside it, whose name ends in .parts, lie the file's beginning, the document index
/// and a journal with a line for every finished shard, which is written after the shard itself. After a kill, a crash or a full disk the shards of
/// the journal that are whole, as their digests tell, stay; what follows them is cut off.</summary>
internal sealed class TokenFileAssembly : IDisposable
{
    private const int CopyBytes = 1 << 20;
    private readonly string _path, _folder;
    private readonly TokenFileLayout _layout;
    private readonly FileStream _ids, _index, _journal;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    /// <param name="path">the token file to be</param>
    /// <param name="layout">vocabulary, tokenizer and place of end-of-text; the counts follow</param>
    /// <param name="identity">what the shards are of: with another one, what lies there is thrown away</param>
    public TokenFileAssembly(string path, TokenFileLayout layout, string identity, CancellationToken cancel)
    {
        (_path, _folder, _layout) = (Path.GetFullPath(path), Path.GetFullPath(path) + ".parts", layout);
        Directory.CreateDirectory(_folder);
        string heading = JsonSerializer.Serialize(new Heading(2, identity));
        // A kill between the last rename and the deletion of the folder: everything is there, under the other name.
        if (!File.Exists(Part("ids")) && File.Exists(Part("journal")) && File.Exists(_path) && File.ReadLines(Part("journal")).FirstOrDefault() == heading) File.Move(_path, Part("ids"));
        List<FileStream> opened = [];
        try
        {
            foreach (string name in (string[])["ids", "index", "journal"])
                opened.Add(new FileStream(Part(name), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 1 << 16));
            (_ids, _index, _journal) = (opened[0], opened[1], opened[2]);
            Resume(heading, cancel);
        }
        catch
        {
            foreach (FileStream stream in opened) stream.Dispose();
            _hash.Dispose();
            throw;
        }
    }

    /// <summary>Where the source goes on.</summary>
    public ShardPosition Position { get; private set; }

    public long Documents { get; private set; }

    public long Tokens { get; private set; }

    public long TextBytes { get; private set; }

    /// <summary>What reading counted in all shards, those of earlier attempts included.</summary>
    public ReadingReport Report { get; } = new();

    /// <summary>Lengths and repetitions of the documents.</summary>
    public DocumentStatistics Statistics { get; } = new();

    /// <summary>Adds the shard that follows.</summary>
    public void Append(EncodedShard shard)
    {
        FinishedShard finished = shard.Finished!;
        _ids.Write(shard.Ids);
        _hash.AppendData(shard.Ids);
        Gather(shard.Starts, finished.Tokens, shard.Hashes);
        foreach (ref long start in shard.Starts) start += Tokens;
        _index.Write(MemoryMarshal.AsBytes(shard.Starts));
        _ids.Flush();
        _index.Flush();
        JsonSerializer.Serialize(_journal, finished);
        _journal.WriteByte((byte)'\n');
        _journal.Flush();
        Count(finished);
    }

    /// <summary>Adds index, checksum and header, flushes to the disk and gives the file its name.</summary>
    public void Complete()
    {
        TokenFileLayout layout = _layout with { Count = Tokens, Documents = Documents, TextBytes = TextBytes, Checksum = new byte[SHA256.HashSizeInBytes] };
        byte[] padding = new byte[layout.IndexAt - TokenFileLayout.HeaderBytes - (Tokens * layout.Width)], copy = new byte[CopyBytes];
        _ids.Write(padding);
        _hash.AppendData(padding);
        _index.Position = 0;
        for (int read; (read = _index.Read(copy)) > 0;)
        {
            _ids.Write(copy.AsSpan(0, read));
            _hash.AppendData(copy.AsSpan(0, read));
        }
        _hash.AppendData(layout.WithoutChecksum());
        _ids.Position = 0;
        _ids.Write((layout with { Checksum = _hash.GetHashAndReset() }).Write());
        _ids.Flush(flushToDisk: true);
        Dispose();
        File.Move(Part("ids"), _path, overwrite: true);
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>Without <see cref="Complete"/> before it, the finished shards stay for the next attempt.</summary>
    public void Dispose()
    {
        foreach (FileStream stream in (FileStream[])[_ids, _index, _journal])
        {
            try { stream.Dispose(); }
            catch (IOException) { /* a full disk: the shard that could not be flushed is not in the journal */ }
        }
        _hash.Dispose();
    }

    private string Part(string name) => Path.Combine(_folder, name);

    private void Resume(string heading, CancellationToken cancel)
    {
        long known = 0;
        using (StreamReader lines = new(_journal, leaveOpen: true))
        {
            if (lines.ReadLine() == heading)
            {
                known = heading.Length + 1;
                // The JSON is ASCII, so that a line has as many bytes as characters. Without its line end a line is not whole.
                while (lines.ReadLine() is { } line && known + line.Length < _journal.Length && Parse(line) is { } shard && IsWhole(shard))
                {
                    cancel.ThrowIfCancellationRequested();
                    Count(shard);
                    known += line.Length + 1;
                }
            }
        }
        Cut(_journal, known);
        Cut(_index, Documents * sizeof(long));
        Cut(_ids, known == 0 ? 0 : TokenFileLayout.HeaderBytes + (Tokens * _layout.Width));
        if (known > 0) return;
        _ids.Write(new byte[TokenFileLayout.HeaderBytes]);
        _ids.Flush();
        _journal.Write(System.Text.Encoding.ASCII.GetBytes(heading + "\n"));
        _journal.Flush();
    }

    /// <summary>Compares a shard with its digest, and takes it into the checksum.</summary>
    private bool IsWhole(FinishedShard shard)
    {
        long at = TokenFileLayout.HeaderBytes + (Tokens * _layout.Width), indexAt = Documents * sizeof(long);
        // Bounded by the files first, so that nothing great is allocated and nothing overflows.
        if (shard.Documents < 0 || shard.Tokens > Array.MaxLength / _layout.Width || shard.Documents > (_index.Length - indexAt) / sizeof(long) || shard.Tokens < 0 || shard.Tokens > (_ids.Length - at) / _layout.Width) return false;
        byte[] ids = new byte[shard.Tokens * _layout.Width];
        long[] starts = new long[shard.Documents];
        (_ids.Position, _index.Position) = (at, indexAt);
        _ids.ReadExactly(ids);
        _index.ReadExactly(MemoryMarshal.AsBytes(starts.AsSpan()));
        foreach (ref long start in starts.AsSpan()) start -= Tokens;
        if (!AreInOrder(starts, shard.Tokens)) return false;
        ulong[] hashes = Hashes(ids, starts);
        if (shard.DigestOf(starts, hashes) != shard.Digest) return false;
        _hash.AppendData(ids);
        Gather(starts, shard.Tokens, hashes);
        return true;
    }

    /// <param name="starts">Counted from the shard's first token.</param>
    private void Gather(ReadOnlySpan<long> starts, long tokens, ReadOnlySpan<ulong> hashes)
    {
        for (int i = 0; i < starts.Length; i++) Statistics.Add((i + 1 < starts.Length ? starts[i + 1] : tokens) - starts[i], hashes[i]);
    }

    /// <summary>Whether every token belongs to a document.</summary>
    private static bool AreInOrder(ReadOnlySpan<long> starts, long tokens)
    {
        long before = 0;
        foreach (long start in starts)
        {
            if (start < before || start > tokens) return false;
            before = start;
        }
        return starts.IsEmpty ? tokens == 0 : starts[0] == 0;
    }

    private ulong[] Hashes(byte[] bytes, ReadOnlySpan<long> starts)
    {
        int[] ids = new int[bytes.Length / _layout.Width];
        if (_layout.Width == sizeof(int)) bytes.CopyTo(MemoryMarshal.AsBytes(ids.AsSpan()));
        else Ids.Widen(MemoryMarshal.Cast<byte, ushort>(bytes), ids);
        ulong[] hashes = new ulong[starts.Length];
        for (int i = 0; i < hashes.Length; i++) hashes[i] = DocumentHash.Of(ids.AsSpan((int)starts[i]..(i + 1 < starts.Length ? (int)starts[i + 1] : ids.Length)));
        return hashes;
    }

    private void Count(FinishedShard shard)
    {
        Position = shard.End;
        Documents += shard.Documents;
        Tokens += shard.Tokens;
        TextBytes += shard.TextBytes;
        Report.Add(shard.Report);
    }

    private static FinishedShard? Parse(string line)
    {
        try { return JsonSerializer.Deserialize<FinishedShard>(line) is { Report: not null } shard ? shard : null; }
        catch (Exception e) when (e is JsonException or ArgumentException) { return null; }
    }

    private static void Cut(FileStream stream, long length)
    {
        // Shorter than that is only a header without its end, which is written last anyway.
        stream.SetLength(length);
        stream.Position = length;
    }

    /// <summary>The first line of the journal.</summary>
    private sealed record Heading(int Format, string Identity);
}
