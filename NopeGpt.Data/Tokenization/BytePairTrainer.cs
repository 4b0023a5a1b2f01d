using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>How a tokenizer is to be trained.</summary>
public sealed record BytePairOptions
{
    /// <summary>Special tokens + 256 + merges; fewer come out when the text has no more pairs to merge.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Their ids are 0, 1, ... in this order; &lt;|endoftext|> must be among them.</summary>
    public IReadOnlyList<string> SpecialTokens { get; init; } = [Tokenizer.EndOfText];

    /// <summary>A pair that occurs less often is not merged.</summary>
    public long MinimumFrequency { get; init; }

    /// <summary>Words are cut as GPT-2 does: numbers of any length in one, capital contractions not by themselves. Otherwise as cl100k_base does, with at most
    /// three digits in one.</summary>
    public bool Gpt2Words { get; init; }

    /// <summary>Everything that is wrong with them, one sentence for the property.</summary>
    public IEnumerable<(string Property, string Problem)> Problems()
    {
        if (!SpecialTokens.Contains(Tokenizer.EndOfText)) yield return (nameof(SpecialTokens), $"The special tokens must include {Tokenizer.EndOfText}.");
        if (SpecialTokens.Any(string.IsNullOrEmpty) || SpecialTokens.Distinct().Count() != SpecialTokens.Count)
            yield return (nameof(SpecialTokens), "Each special token must be given once and must not be empty.");
        foreach (string special in SpecialTokens)
            if (Encoding.UTF8.GetBytes(special) is { Length: > 0 } bytes && WordSplitter.End(Pattern, bytes, 0) == bytes.Length)
                yield return (nameof(SpecialTokens), $"The special token '{special}' could also be spelled by merges of ordinary text; put marks around it, as in <|{special}|>.");
        int smallest = SpecialTokens.Count + ByteAlphabet.Order.Length;
        if (VocabularySize < smallest)
            yield return (nameof(VocabularySize), $"The vocabulary size {VocabularySize} is too small: {ByteAlphabet.Order.Length} bytes and {SpecialTokens.Count} special tokens need at least {smallest}.");
        if (MinimumFrequency < 0) yield return (nameof(MinimumFrequency), $"The minimum frequency {MinimumFrequency} must not be negative.");
    }

    internal WordPattern Pattern => Gpt2Words ? WordPattern.Gpt2 : WordPattern.Trained;
}

/// <summary>How far a training is.</summary>
/// <param name="Bytes">Of text, counted so far.</param>
/// <param name="DistinctWords">In them.</param>
/// <param name="Tokens">In the vocabulary so far; 0 while words are counted.</param>
public readonly record struct BytePairProgress(long Documents, long Bytes, int DistinctWords, int Tokens);

/// <summary>Trains byte-level byte-pair encodings (Sennrich, Haddow, Birch: "Neural machine translation of rare words with subword units", 2016).
/// The most frequent pair inside words becomes a token, again and again. Counts, ties and ids are those of Hugging Face's trainer:
/// higher count first, then the smaller pair of ids; special tokens first, then the 256 bytes in the order of their characters, then the merges.
/// The same documents give the same tokenizer, whatever their order. Memory grows with the distinct words, not with the text.</summary>
public static class BytePairTrainer
{
    private const int ReportEvery = 256;

    /// <summary>As the other one, with the default options.</summary>
    /// <param name="progress">is told the share of merges that is done, 0 to 1 (counting the words comes before and is not in it)</param>
    public static Tokenizer Train(
        IEnumerable<string> documents, int vocabularySize, IReadOnlyList<string>? specialTokens = null, Action<double>? progress = null, CancellationToken cancel = default)
    {
        BytePairOptions options = new() { VocabularySize = vocabularySize };
        if (specialTokens is not null) options = options with { SpecialTokens = specialTokens };
        int first = options.SpecialTokens.Count + ByteAlphabet.Order.Length;
        Tokenizer tokenizer = Train(documents, options, progress is null ? null : state =>
        {
            if (state.Tokens > 0) progress(vocabularySize == first ? 0 : (double)(state.Tokens - first) / (vocabularySize - first));
        }, cancel);
        progress?.Invoke(1);
        return tokenizer;
    }

    /// <summary>Trains a tokenizer.</summary>
    /// <param name="documents">The text, read once, one at a time; words never reach over the end of a document.</param>
    /// <param name="progress">Is told how far it is, from time to time and at the end.</param>
    /// <param name="cancel">Stops between two words or merges.</param>
    /// <exception cref="ArgumentException">The vocabulary is too small for the bytes and special tokens, or the special tokens are not as said.</exception>
    public static Tokenizer Train(IEnumerable<string> documents, BytePairOptions options, Action<BytePairProgress>? progress = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(documents);
        ArgumentNullException.ThrowIfNull(options);
        if (options.Problems().FirstOrDefault().Problem is { } problem) throw new ArgumentException(problem, nameof(options));
        WordCounts words = new(options.Pattern);
        BytePairProgress state = default;
        foreach (string document in documents)
        {
            words.Add(document, cancel);
            state = state with { Documents = state.Documents + 1, Bytes = words.Bytes, DistinctWords = words.Count };
            if (state.Documents % ReportEvery == 0) progress?.Invoke(state);
        }
        Dictionary<string, int> specials = [];
        List<byte[]> tokens = [];
        foreach (string special in options.SpecialTokens)
        {
            specials.Add(special, tokens.Count);
            tokens.Add(Encoding.UTF8.GetBytes(special));
        }
        int[] byteIds = new int[256];
        foreach (byte value in ByteAlphabet.Order)
        {
            byteIds[value] = tokens.Count;
            tokens.Add([value]);
        }
        MergeLearner learner = new(tokens);
        learner.Take(words, byteIds);
        words = null!;
        List<Merge> merges = learner.Learn(options.VocabularySize, options.MinimumFrequency, progress is null ? null : count => progress(state with { Tokens = count }), cancel);
        progress?.Invoke(state with { Tokens = tokens.Count });
        return new Tokenizer(new Vocabulary([.. tokens], specials, merges)
        {
            Rules = options.Gpt2Words ? new TextRules { Pattern = WordPattern.Gpt2 } : TextRules.Trained,
            EndOfTextId = specials[Tokenizer.EndOfText],
            ByteIds = byteIds,
        });
    }
}
