using System.Globalization;
using System.Text.Json.Serialization;
using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>How <see cref="BeamSearch"/> looks for likely texts. The first three defaults are the reference's.</summary>
public sealed record BeamSearchOptions
{
    /// <summary>Texts to find.</summary>
    [JsonPropertyName("num_candidates")]
    public int NumCandidates { get; init; } = 3;

    /// <summary>Unfinished texts that are followed side by side.</summary>
    [JsonPropertyName("beam_width")]
    public int BeamWidth { get; init; } = 16;

    /// <summary>A text's score is its log-probability / length^penalty: 0 compares whole texts, 1 the mean of their tokens, more favours long ones.</summary>
    [JsonPropertyName("length_penalty")]
    public double LengthPenalty { get; init; } = 1;

    /// <summary>Tokens of a text at most.</summary>
    [JsonPropertyName("max_tokens")]
    public int MaxTokens { get; init; } = 200;

    /// <summary>Tokens that the model sees at once; with more, the oldest are dropped.</summary>
    [JsonPropertyName("context_length")]
    public int ContextLength { get; init; } = 1024;

    /// <summary>Everything that is wrong with the settings.</summary>
    public IEnumerable<Problem> Problems()
    {
        if (NumCandidates < 1) yield return Wrong("num_candidates", NumCandidates, "a whole number of 1 or more");
        if (BeamWidth is < 1 or > MostBeams) yield return Wrong("beam_width", BeamWidth, $"a whole number from 1 to {MostBeams}");
        // Below 0 a longer text could always be made better, and nothing would say when to stop.
        if (!(LengthPenalty is >= 0 and <= MostPenalty)) yield return Wrong("length_penalty", LengthPenalty, $"a number from 0 (length does not count) to {MostPenalty}");
        if (MaxTokens < 1) yield return Wrong("max_tokens", MaxTokens, "a whole number of 1 or more");
        if (ContextLength < 1) yield return Wrong("context_length", ContextLength, "a whole number of 1 or more");

        static Problem Wrong(string field, IFormattable value, string cure) =>
            new(field, value.ToString(null, CultureInfo.InvariantCulture), $"is out of range: choose {cure}");
    }

    private const int MostBeams = 4096, MostPenalty = 10;
}

/// <summary>A text that beam search has found.</summary>
/// <param name="Tokens">Ids after the prompt, without the stop token; none where the text ends at once.</param>
/// <param name="LogProbability">Natural logarithm of its probability after the prompt, its stop token's included.</param>
/// <param name="Score">LogProbability / max(1, tokens)^length_penalty.</param>
public sealed record BeamCandidate(IReadOnlyList<int> Tokens, double LogProbability, double Score);

/// <summary>Looks for the likeliest continuations of a prompt.</summary>
public static class BeamSearch
{
    // Shapes: B open texts, V vocabulary, S stop tokens, W the best continuations of all open texts.

    /// <summary>Follows the likeliest open texts side by side, best first, all of one length: each step reads one more token of each from
    /// the cache, and of all their continuations keeps the beam_width likeliest, by the softmax over the whole vocabulary in double
    /// precision. Every open text is also tried with each stop token behind it, whether that is likely or not, and texts of max_tokens
    /// are finished without one. The search ends when no open text could still become better than the worst of num_candidates finished ones:
    /// log-probabilities only fall, so that log p / max_tokens^length_penalty is the best that can come of an open one.</summary>
    /// <param name="model">In evaluation mode.</param>
    /// <param name="prompt">Ids to continue, at least one.</param>
    /// <param name="stopTokens">Ids that end a text. They are not part of it, but their probability is.</param>
    /// <param name="vocabularySize">Ids from 0 to below this are considered: the tokenizer's size where it is less than the model's.</param>
    /// <returns>The finished texts, best score first: num_candidates, or fewer where there are not so many.</returns>
    /// <exception cref="ArgumentException">The options have problems, or an id is not in the vocabulary.</exception>
    /// <exception cref="InvalidDataException">The model's output is not a number.</exception>
    public static IReadOnlyList<BeamCandidate> Run(
        Decoder model, IReadOnlyList<int> prompt, BeamSearchOptions options, IReadOnlyCollection<int> stopTokens, int? vocabularySize = null, CancellationToken cancel = default)
    {
        int vocabulary = Check(model, prompt, options, stopTokens, vocabularySize);
        int[] stops = [.. stopTokens.Distinct().Order()], next = [.. prompt];
        List<BeamCandidate> finished = [];
        List<Beam> open = [new([], 0, 0)];
        using KeyValueCache cache = new(model.Config, 1, options.ContextLength, model.Device);
        for (int length = 0; length < options.MaxTokens && open.Count > 0 && !Settled(finished, open[0], options); length++)
        {
            cancel.ThrowIfCancellationRequested();
            (List<Beam> longer, List<BeamCandidate> ended) = Step(model, cache, open, next, stops, vocabulary, options);
            if (length + 1 == options.MaxTokens) ended.AddRange(longer.Select(b => Candidate(b.Tokens, b.LogProbability, options)));
            finished = [.. finished.Concat(ended).OrderByDescending(c => c.Score).Take(options.NumCandidates)];
            open = longer;
            if (open.Count > 0) cache.Select([.. open.Select(b => b.Parent)]);
            next = [.. open.Select(b => b.Tokens[^1])];
        }
        return finished;
    }

    /// <param name="Parent">The row of the cache that holds the text without its last token.</param>
    private sealed record Beam(int[] Tokens, double LogProbability, int Parent);

    /// <summary>Reads the newest tokens of the open texts.</summary>
    /// <returns>The best continuations, best first; and the open texts as they are with a stop token.</returns>
    private static (List<Beam> Longer, List<BeamCandidate> Ended) Step(
        Decoder model, KeyValueCache cache, List<Beam> open, int[] next, int[] stops, int vocabulary, BeamSearchOptions options)
    {
        using DisposeScope scope = NewDisposeScope();
        using var inference = no_grad();
        int rows = open.Count;
        Tensor ids_BT = tensor(Array.ConvertAll(next, t => (long)t), [rows, next.Length / rows], ScalarType.Int64, model.Device);
        Tensor sofar_B1 = tensor([.. open.Select(b => b.LogProbability)], [rows, 1]).to(model.Device);
        Tensor logP_BV = model.Forward(ids_BT, cache).narrow(1, 0, vocabulary).to(ScalarType.Float64).log_softmax(1).add_(sofar_B1, Scalars.One);
        Tensor stops_S = tensor(Array.ConvertAll(stops, t => (long)t), ScalarType.Int64, model.Device), ended_BS = logP_BV.index_select(1, stops_S);
        if (stops.Length > 0) logP_BV.index_fill_(1, stops_S, Scalars.MinusInfinity);
        int count = (int)Math.Min(options.BeamWidth, logP_BV.numel());
        (Tensor best_W, Tensor places_W) = logP_BV.flatten().topk(count);
        double[] values = cat([best_W, places_W, ended_BS.flatten()]).cpu().data<double>().ToArray();
        if (Array.Exists(values, double.IsNaN))
            throw new InvalidDataException("the model's output is not a number: its training diverged or its file is damaged; take an earlier checkpoint.");
        List<Beam> longer = [];
        for (int i = 0; i < count && !double.IsNegativeInfinity(values[i]); i++)
        {
            int parent = (int)((long)values[count + i] / vocabulary), id = (int)((long)values[count + i] % vocabulary);
            longer.Add(new([.. open[parent].Tokens, id], values[i], parent));
        }
        List<BeamCandidate> ended = [];
        for (int b = 0; b < rows; b++)
        {
            for (int s = 0; s < stops.Length; s++)
            {
                double logP = values[(2 * count) + (b * stops.Length) + s];
                if (!double.IsNegativeInfinity(logP)) ended.Add(Candidate(open[b].Tokens, logP, options));
            }
        }
        return (longer, ended);
    }

    private static BeamCandidate Candidate(int[] tokens, double logProbability, BeamSearchOptions options) =>
        new(tokens, logProbability, logProbability / Math.Pow(Math.Max(1, tokens.Length), options.LengthPenalty));

    private static bool Settled(List<BeamCandidate> finished, Beam likeliest, BeamSearchOptions options) =>
        finished.Count == options.NumCandidates && finished[^1].Score >= likeliest.LogProbability / Math.Pow(options.MaxTokens, options.LengthPenalty);

    private static int Check(Decoder model, IReadOnlyList<int> prompt, BeamSearchOptions options, IReadOnlyCollection<int> stopTokens, int? vocabularySize)
    {
        string[] problems = [.. options.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(options));
        int known = model.AdaptedConfig.VocabularySize, vocabulary = vocabularySize ?? known;
        ArgumentOutOfRangeException.ThrowIfLessThan(vocabulary, 1, nameof(vocabularySize));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(vocabulary, known, nameof(vocabularySize));
        if (prompt.Count == 0) throw new ArgumentException("the prompt is empty: give at least one token", nameof(prompt));
        foreach (int id in prompt)
            if (id < 0 || id >= known) throw new ArgumentException($"the prompt's token {id} is not in the vocabulary: ids go from 0 to {known - 1}", nameof(prompt));
        foreach (int id in stopTokens)
            if (id < 0 || id >= vocabulary) throw new ArgumentException($"the stop token {id} is not in the vocabulary: ids go from 0 to {vocabulary - 1}", nameof(stopTokens));
        return vocabulary;
    }
}
