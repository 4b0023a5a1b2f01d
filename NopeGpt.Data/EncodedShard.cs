using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data;

/// <summary>The ids of a shard's documents as they go into a token file. It is used again for other shards, so that its memory is.</summary>
internal sealed class EncodedShard
{
    private readonly List<int> _ids = [];
    private readonly List<long> _starts = [];
    private readonly List<ulong> _hashes = [];
    private byte[] _bytes = [];
    private int _length;

    /// <summary>What it is of.</summary>
    public Shard? Shard { get; private set; }

    /// <summary>What the journal keeps of it.</summary>
    public FinishedShard? Finished { get; private set; }

    public double Fraction { get; private set; }

    public ReadOnlySpan<byte> Ids => _bytes.AsSpan(0, _length);

    /// <summary>The first token of each document, counted from the shard's first.</summary>
    public Span<long> Starts => CollectionsMarshal.AsSpan(_starts);

    /// <summary>The <see cref="DocumentHash"/> of each document.</summary>
    public ReadOnlySpan<ulong> Hashes => CollectionsMarshal.AsSpan(_hashes);

    /// <summary>Reads and encodes a shard, up to the document with which it reaches so many tokens.</summary>
    public void Fill(Shard shard, ColumnMapping mapping, Tokenizer tokenizer, EndOfText endOfText, CancellationToken cancel, long maximumTokens = long.MaxValue)
    {
        (Shard, _length) = (shard, 0);
        _starts.Clear();
        _hashes.Clear();
        long tokens = 0, textBytes = 0;
        ReadingReport report = new();
        foreach (ReadOnlyMemory<byte> text in shard.Utf8Texts(mapping, report))
        {
            cancel.ThrowIfCancellationRequested();
            _starts.Add(tokens);
            _ids.Clear();
            if (endOfText == EndOfText.Before) _ids.Add(tokenizer.EndOfTextId);
            tokenizer.Encode(text.Span, _ids);
            if (endOfText == EndOfText.After) _ids.Add(tokenizer.EndOfTextId);
            // Document by document, while the ids are in the processor's nearest memory.
            Add(CollectionsMarshal.AsSpan(_ids), tokenizer.VocabularySize);
            tokens += _ids.Count;
            textBytes += text.Length;
            if (tokens >= maximumTokens) break;
        }
        Fraction = shard.Fraction;
        FinishedShard finished = new(shard.End, _starts.Count, tokens, textBytes, "", report);
        Finished = finished with { Digest = finished.DigestOf(Starts, Hashes) };
    }

    private void Add(ReadOnlySpan<int> ids, int vocabularySize)
    {
        int length = checked(_length + (ids.Length * TokenFileLayout.WidthFor(vocabularySize)));
        if (_bytes.Length < length) Array.Resize(ref _bytes, Math.Max(length, (int)Math.Min(2L * _bytes.Length, Array.MaxLength)));
        if (TokenFileLayout.Pack(ids, vocabularySize, _bytes.AsSpan(_length)) is { } wrong)
            throw new InvalidDataException($"The tokenizer of {vocabularySize} tokens gave the id {wrong}; its file is damaged: get it again.");
        _hashes.Add(DocumentHash.Of(ids));
        _length = length;
    }

    /// <summary>Gives back what the shard holds; the ids stay.</summary>
    public void ReleaseShard()
    {
        Shard?.Release();
        Shard = null;
    }
}

/// <summary>A line of the journal: a shard whose ids and document starts are written.</summary>
/// <param name="End">where the source goes on after it</param>
/// <param name="Digest">SHA-256 over the other values, the starts and the hashes of the documents, by which their ids are known</param>
/// <param name="Report">what its reading counted</param>
internal sealed record FinishedShard(ShardPosition End, long Documents, long Tokens, long TextBytes, string Digest, ReadingReport Report)
{
    /// <param name="starts">counted from the shard's first token</param>
    /// <param name="hashes">the <see cref="DocumentHash"/> of each document</param>
    public string DigestOf(ReadOnlySpan<long> starts, ReadOnlySpan<ulong> hashes)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(JsonSerializer.SerializeToUtf8Bytes(this with { Digest = "" }));
        hash.AppendData(MemoryMarshal.AsBytes(starts));
        hash.AppendData(MemoryMarshal.AsBytes(hashes));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
