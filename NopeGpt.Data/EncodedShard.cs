using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Data;

/// <summary>The ids of a shard's documents as they go into a token file. It is used again for other shards, so that its memory is.</summary>
internal sealed class EncodedShard
{
    private readonly List<int> _ids = [];
    private readonly List<long> _starts = [];
    private byte[] _bytes = [];
    private int _length;

    /// <summary>What the journal keeps of it.</summary>
    public FinishedShard? Finished { get; private set; }

    public double Fraction { get; private set; }

    public ReadOnlySpan<byte> Ids => _bytes.AsSpan(0, _length);

    /// <summary>The first token of each document, counted from the shard's first.</summary>
    public Span<long> Starts => CollectionsMarshal.AsSpan(_starts);

    /// <summary>Reads and encodes a shard.</summary>
    public void Fill(Shard shard, ColumnMapping mapping, Tokenizer tokenizer, EndOfText endOfText, CancellationToken cancel)
    {
        _ids.Clear();
        _starts.Clear();
        long textBytes = 0;
        ReadingReport report = new();
        foreach (string text in shard.Texts(mapping, report))
        {
            cancel.ThrowIfCancellationRequested();
            _starts.Add(_ids.Count);
            if (endOfText == EndOfText.Before) _ids.Add(tokenizer.EndOfTextId);
            tokenizer.Encode(text, _ids);
            if (endOfText == EndOfText.After) _ids.Add(tokenizer.EndOfTextId);
            textBytes += Encoding.UTF8.GetByteCount(text);
        }
        _length = checked(_ids.Count * TokenFileLayout.WidthFor(tokenizer.VocabularySize));
        if (_bytes.Length < _length) _bytes = new byte[_length];
        if (TokenFileLayout.Pack(CollectionsMarshal.AsSpan(_ids), tokenizer.VocabularySize, _bytes) is { } wrong)
            throw new InvalidDataException($"The tokenizer of {tokenizer.VocabularySize} tokens gave the id {wrong}; its file is damaged: get it again.");
        Fraction = shard.Fraction;
        FinishedShard finished = new(shard.End, _starts.Count, _ids.Count, textBytes, "", report);
        Finished = finished with { Digest = finished.DigestOf(Ids, Starts) };
    }
}

/// <summary>A line of the journal: a shard whose ids and document starts are written.</summary>
/// <param name="End">where the source goes on after it</param>
/// <param name="Digest">SHA-256 over the other values, the ids and the starts</param>
/// <param name="Report">what its reading counted</param>
internal sealed record FinishedShard(ShardPosition End, long Documents, long Tokens, long TextBytes, string Digest, ReadingReport Report)
{
    /// <param name="starts">counted from the shard's first token</param>
    public string DigestOf(ReadOnlySpan<byte> ids, ReadOnlySpan<long> starts)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(JsonSerializer.SerializeToUtf8Bytes(this with { Digest = "" }));
        hash.AppendData(ids);
        hash.AppendData(MemoryMarshal.AsBytes(starts));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
