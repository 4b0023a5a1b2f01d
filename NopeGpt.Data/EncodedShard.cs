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
    private readonly List<long> _textBytes = [];
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
        _textBytes.Clear();
        ReadingReport report = new();
        foreach (string text in shard.Texts(mapping, report))
        {
            cancel.ThrowIfCancellationRequested();
            _starts.Add(_ids.Count);
            if (endOfText == EndOfText.Before) _ids.Add(tokenizer.EndOfTextId);
            tokenizer.Encode(text, _ids);
            if (endOfText == EndOfText.After) _ids.Add(tokenizer.EndOfTextId);
            _textBytes.Add(Encoding.UTF8.GetByteCount(text));
        }
        _length = checked(_ids.Count * TokenFileLayout.WidthFor(tokenizer.VocabularySize));
        if (_bytes.Length < _length) _bytes = new byte[_length];
        if (TokenFileLayout.Pack(CollectionsMarshal.AsSpan(_ids), tokenizer.VocabularySize, _bytes) is { } wrong)
            throw new InvalidDataException($"The tokenizer of {tokenizer.VocabularySize} tokens gave the id {wrong}; its file is damaged: get it again.");
        Fraction = shard.Fraction;
        Finish(shard.End, report);
    }

    /// <summary>Leaves out the documents behind the one with which so many tokens are reached.</summary>
    public void Cut(long tokens)
    {
        int documents = 1;
        while (documents < _starts.Count && _starts[documents] < tokens) documents++;
        if (documents >= _starts.Count) return;
        int kept = (int)_starts[documents];
        _length = _length / _ids.Count * kept;
        _ids.RemoveRange(kept, _ids.Count - kept);
        _starts.RemoveRange(documents, _starts.Count - documents);
        _textBytes.RemoveRange(documents, _textBytes.Count - documents);
        Finish(Finished!.End, Finished.Report);
    }

    private void Finish(ShardPosition end, ReadingReport report)
    {
        FinishedShard finished = new(end, _starts.Count, _ids.Count, _textBytes.Sum(), "", report);
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
