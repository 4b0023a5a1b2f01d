namespace NopeGpt.Data.Tokenization;

/// <summary>What a tokenizer makes of a text.</summary>
/// <param name="Documents">Counted.</param>
/// <param name="Bytes">Of the documents in UTF-8, half surrogate pairs as U+FFFD.</param>
/// <param name="Characters">Code points of them.</param>
/// <param name="Tokens">Without any between the documents.</param>
/// <param name="DistinctTokens">How many of the vocabulary's ids occur.</param>
/// <param name="Changed">Documents that decoding does not give back as they were, because the tokenizer changes the text.</param>
public sealed record Compression(string Name, int VocabularySize, long Documents, long Bytes, long Characters, long Tokens, int DistinctTokens, long Changed)
{
    /// <summary>Bytes of text that a token stands for; 0 without any text. More is better: the text costs fewer steps of a model.</summary>
    public double BytesPerToken => Tokens == 0 ? 0 : (double)Bytes / Tokens;

    /// <summary>The text's size if every id took as many bits as the vocabulary needs, as a share of its bytes: it makes vocabularies of different sizes comparable.</summary>
    public double Ratio => Bytes == 0 ? 0 : Tokens * Math.Log2(Math.Max(2, VocabularySize)) / (8.0 * Bytes);
}

/// <summary>Compares tokenizers over one text.</summary>
public static class TokenizerComparison
{
    /// <param name="documents">Read once; only one is held at a time.</param>
    /// <param name="tokenizers">With the names under which they are reported, in this order.</param>
    /// <param name="cancel">Stops between two documents.</param>
    public static IReadOnlyList<Compression> Compare(IEnumerable<string> documents, IReadOnlyList<(string Name, Tokenizer Tokenizer)> tokenizers, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(documents);
        ArgumentNullException.ThrowIfNull(tokenizers);
        Count[] counts = [.. tokenizers.Select(named => new Count(named.Tokenizer))];
        long number = 0, bytes = 0, characters = 0;
        foreach (string document in documents)
        {
            cancel.ThrowIfCancellationRequested();
            // As it is in UTF-8, which is what the tokenizers see.
            byte[] utf8 = System.Text.Encoding.UTF8.GetBytes(document);
            string text = System.Text.Encoding.UTF8.GetString(utf8);
            number++;
            bytes += utf8.Length;
            foreach (System.Text.Rune _ in text.EnumerateRunes()) characters++;
            foreach (Count count in counts) count.Add(utf8, text);
        }
        return [.. tokenizers.Select((named, i) => new Compression(named.Name, named.Tokenizer.VocabularySize, number, bytes, characters, counts[i].Tokens, counts[i].Distinct, counts[i].Changed))];
    }

    private sealed class Count(Tokenizer tokenizer)
    {
        private readonly List<int> _ids = [];
        private readonly bool[] _seen = new bool[tokenizer.VocabularySize];

        public long Tokens { get; private set; }
        public long Changed { get; private set; }
        public int Distinct => _seen.Count(seen => seen);

        public void Add(byte[] utf8, string text)
        {
            _ids.Clear();
            tokenizer.Encode(utf8, _ids);
            Tokens += _ids.Count;
            foreach (int id in _ids) _seen[id] = true;
            if (tokenizer.Decode(_ids) != text) Changed++;
        }
    }
}
