using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>A token and its probability, from 0 to 1.</summary>
public readonly record struct TokenProbability(int Id, float Probability);

/// <summary>A chosen token.</summary>
/// <param name="Probability">Its probability among the tokens that were kept, from 0 to 1.</param>
public readonly record struct SampledToken(int Id, float Probability)
{
    /// <summary>The likeliest of the kept tokens, the chosen one among them where it is one of these: likeliest first, with their
    /// probabilities among the kept ones. As many as were asked for, or fewer where fewer were kept.</summary>
    public IReadOnlyList<TokenProbability> Alternatives { get; init; } = [];
}

/// <summary>Chooses tokens of one text, in this order: repeat penalty, top-k, temperature, softmax, top-p, min-p, renormalise, draw.
/// Min-p compares with the likeliest token's probability, so it makes no difference that top-p comes before it.
/// All of it is computed where the logits are; one copy brings the choice back.
/// The draws come from a generator of its own (SplitMix64, Steele et al. 2014) over the tokens sorted by probability, equal ones
/// by id, so that one seed gives one text on every machine whose logits agree, alone or in a batch.</summary>
public sealed class Sampler
{
    // Shapes: B texts side by side, V vocabulary, K the most tokens that top-k leaves to one of the texts, sorted by probability.

    /// <summary>What has a smaller probability can never be drawn: the draws are multiples of 2^-53.</summary>
    private const double Impossible = 1e-300;

    /// <summary>A draw that takes the likeliest token.</summary>
    private const double Greedy = -1;

    private readonly SamplingOptions _options;
    private ulong _state;

    /// <exception cref="ArgumentException">The options have problems.</exception>
    public Sampler(SamplingOptions options, ulong seed)
    {
        string[] problems = [.. options.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(options));
        _options = options;
        _state = seed;
    }

    /// <summary>Chooses the next token.</summary>
    /// <param name="logits_V">One logit for each token of the vocabulary, of any floating type, on any device. Minus infinity forbids a token.</param>
    /// <param name="generated">The tokens generated so far, without the prompt.</param>
    /// <param name="alternatives">How many of the likeliest tokens come with it.</param>
    /// <returns>The token with its probability among the kept ones. At temperature 0 it is the likeliest, with its probability at temperature 1.</returns>
    /// <exception cref="InvalidDataException">A logit is not a number (the model has diverged or its file is damaged), or all are minus infinity.</exception>
    public SampledToken Next(Tensor logits_V, IReadOnlyList<int> generated, int alternatives = 0) =>
        ChooseOne(logits_V, new(this, generated, NextDraw(), alternatives));

    /// <summary>The likeliest of the tokens that <see cref="Next"/> would draw from, without drawing.</summary>
    public SampledToken Likeliest(Tensor logits_V, IReadOnlyList<int> generated, int alternatives = 0) =>
        ChooseOne(logits_V, new(this, generated, Greedy, alternatives));

    /// <summary>Chooses the next token of each of several texts, for the price of one copy. Every text gets the token that
    /// <see cref="Next"/> would give it alone.</summary>
    /// <param name="logits_BV">The logits of the texts.</param>
    /// <param name="samplers">One for each text: its options and its seed.</param>
    /// <param name="generated">The tokens generated so far of each.</param>
    /// <param name="alternatives">How many of the likeliest tokens come with that of each text; null gives none.</param>
    /// <inheritdoc cref="Next"/>
    public static IReadOnlyList<SampledToken> NextOfEach(
        Tensor logits_BV, IReadOnlyList<Sampler> samplers, IReadOnlyList<IReadOnlyList<int>> generated, IReadOnlyList<int>? alternatives = null)
    {
        if (logits_BV.dim() != 2 || logits_BV.shape[0] != samplers.Count)
            throw new ArgumentException($"the logits of one position of {samplers.Count} texts are wanted, of shape [{samplers.Count}, vocabulary]", nameof(logits_BV));
        if (generated.Count != samplers.Count || (alternatives is not null && alternatives.Count != samplers.Count))
            throw new ArgumentException($"the tokens (and the numbers of alternatives) of {samplers.Count} texts are wanted", nameof(generated));
        return Choose(logits_BV, [.. samplers.Select((s, i) => new Text(s, generated[i], s.NextDraw(), alternatives?[i] ?? 0))]);
    }

    /// <param name="Draw">From 0 to below 1, or <see cref="Greedy"/>.</param>
    private readonly record struct Text(Sampler Sampler, IReadOnlyList<int> Generated, double Draw, int Alternatives)
    {
        public SamplingOptions Options => Sampler._options;
    }

    private static SampledToken ChooseOne(Tensor logits_V, Text text)
    {
        if (logits_V.dim() != 1) throw new ArgumentException("the logits of one position are wanted, of shape [vocabulary]", nameof(logits_V));
        return Choose(logits_V, [text])[0];
    }

    /// <param name="logits">[B, V], or [V] for one text.</param>
    private static SampledToken[] Choose(Tensor logits, Text[] texts)
    {
        foreach (Text text in texts) ArgumentOutOfRangeException.ThrowIfNegative(text.Alternatives, "alternatives");
        if (texts.Length == 0) return [];
        using DisposeScope scope = NewDisposeScope();
        using var inference = no_grad();
        int vocabulary = (int)logits.shape[^1], most = texts.Max(t => Kept(t.Options, vocabulary));
        // A copy in any case, because the penalty changes it; and adding 0 makes -0 a 0, which it must equal.
        Tensor flat = logits.to(ScalarType.Float32).add(Scalars.Zero, Scalars.One);
        if (flat.dim() > 1) flat = flat.reshape(-1);
        Penalise(flat, texts, vocabulary);
        return Choose(flat.view(texts.Length, vocabulary), texts, most);
    }

    /// <param name="logits_BV">float32, after the penalty.</param>
    private static SampledToken[] Choose(Tensor logits_BV, Text[] texts, int most)
    {
        (_, Tensor ids_BK) = OrderKeys(logits_BV).topk(most);
        Tensor scaled_BK = Scaled(logits_BV, ids_BK, texts), p_BK = scaled_BK.softmax(1), sum_BK = p_BK.cumsum(1);

        // A token after the first is kept while the sum before it has not reached top-p, so that the one that crosses it is kept, and while it is
        // likely enough. A sum that rounding leaves short of 1 must not end the selection where top-p is off.
        Tensor before_BK = sum_BK.narrow(1, 0, most - 1).lt(Each(texts, logits_BV, t => t.Options.TopP < 1 ? t.Options.TopP : 2));
        Tensor likely_BK = scaled_BK.narrow(1, 1, most - 1).ge(Each(texts, logits_BV, t => Math.Log(Math.Max(t.Options.MinP, Impossible))));
        Tensor last_B1 = before_BK.logical_and_(likely_BK).sum(1, keepdim: true), total_B1 = sum_BK.gather(1, last_B1);
        // The first token at which the sum exceeds the draw.
        Tensor chosen_B1 = searchsorted(sum_BK, total_B1.mul(Each(texts, logits_BV, t => t.Draw)), right: true).minimum(last_B1);
        Tensor id_B1 = ids_BK.gather(1, chosen_B1).to(ScalarType.Float64), chance_B1 = p_BK.gather(1, chosen_B1).div_(total_B1);
        int shown = Math.Min(texts.Max(t => t.Alternatives), most);
        Tensor packed = shown == 0
            ? cat([id_B1, chance_B1], 1)
            : cat([id_B1, chance_B1, last_B1, ids_BK.narrow(1, 0, shown), p_BK.narrow(1, 0, shown).div(total_B1)], 1);
        double[] values = packed.cpu().data<double>().ToArray();
        return Array.Exists(values, double.IsNaN) ? Choose(Finite(logits_BV), texts, most) : Unpack(values, texts, shown);
    }

    /// <summary>How many tokens top-k keeps.</summary>
    private static int Kept(SamplingOptions options, int vocabulary) => options.TopK > 0 ? Math.Min(options.TopK, vocabulary) : vocabulary;

    /// <summary>Integers that no two tokens of a text share and that are in the order of the logits, equal ones by falling id: the tokens that
    /// topk takes of equal ones, and their order, would be an accident. They are sorted faster than floats, too.</summary>
    private static Tensor OrderKeys(Tensor logits_BV)
    {
        // The bits of floats are in the order of the numbers, except that the negative ones run backwards.
        Tensor bits_BV = Aten.View(logits_BV, ScalarType.Int32);
        Tensor order_BV = bits_BV.bitwise_right_shift(31).bitwise_and_(int.MaxValue).bitwise_xor_(bits_BV);
        return arange(Scalars.Zero, Scalars.Of(-logits_BV.shape[1]), Scalars.Of(-1), ScalarType.Int64, logits_BV.device).add(order_BV, Scalars.Of(1L << 32));
    }

    /// <summary>(logits - the best) / temperature of the tokens that top-k keeps, float64: the logarithms of the probabilities less the best
    /// one's. Not numbers where any of the text's logits is not.</summary>
    private static Tensor Scaled(Tensor logits_BV, Tensor ids_BK, Text[] texts)
    {
        // Less the best one before the division, because a tiny temperature must not make infinities of all.
        Tensor best_B1 = logits_BV.amax([1], keepdim: true);
        Tensor scaled_BK = logits_BV.gather(1, ids_BK).to(ScalarType.Float64)
            .sub_(best_B1).div_(Each(texts, logits_BV, t => t.Options.Temperature == 0 ? 1 : t.Options.Temperature));
        int vocabulary = (int)logits_BV.shape[1];
        if (texts.All(t => Kept(t.Options, vocabulary) == ids_BK.shape[1])) return scaled_BK;
        Tensor place_K = Scalars.Range(ids_BK.shape[1], ScalarType.Float64, logits_BV.device);
        return scaled_BK.masked_fill_(place_K.ge(Each(texts, logits_BV, t => Kept(t.Options, vocabulary))), Scalars.MinusInfinity);
    }

    /// <summary>Lowers the logits of repeated tokens in place. n times l - r·|l| is l·(1 - r)^n above 0 and l·(1 + r)^n below, the smaller
    /// of the two products.</summary>
    private static void Penalise(Tensor flat, Text[] texts, int vocabulary)
    {
        List<long> places = [];
        List<double> above = [], below = [];
        for (int i = 0; i < texts.Length; i++)
        {
            double penalty = texts[i].Options.RepeatPenalty;
            int[] window = Window(texts[i], vocabulary);
            for (int first = 0, next; first < window.Length; first = next)
            {
                for (next = first + 1; next < window.Length && window[next] == window[first];) next++;
                places.Add(((long)i * vocabulary) + window[first]);
                // Not 0, which an infinite logit would be no number times.
                above.Add(Math.Max(Math.Pow(1 - penalty, next - first), Impossible));
                below.Add(Math.Pow(1 + penalty, next - first));
            }
        }
        if (places.Count == 0) return;
        Tensor places_P = Upload(tensor(places.ToArray()), flat), factors_2P = Upload(tensor([.. above, .. below], [2, places.Count]), flat);
        flat.index_copy_(0, places_P, factors_2P.mul(flat.index_select(0, places_P)).amin([0]).to(ScalarType.Float32));
    }

    /// <summary>The tokens that the penalty looks at, in the order of their ids.</summary>
    private static int[] Window(Text text, int vocabulary)
    {
        IReadOnlyList<int> generated = text.Generated;
        int length = text.Options.RepeatPenalty == 0 ? 0 : Math.Min(text.Options.RepeatWindow, generated.Count);
        int[] window = new int[length];
        for (int i = 0, start = generated.Count - length; i < length; i++) window[i] = generated[start + i];
        Array.Sort(window);
        if (length > 0 && (window[0] < 0 || window[^1] >= vocabulary))
            throw new ArgumentException($"the generated token {(window[0] < 0 ? window[0] : window[^1])} is not in the vocabulary of {vocabulary}");
        return window;
    }

    /// <summary>A number of each text, where the logits are: [B, 1], or of no dimensions for one text, which an operator on any device takes.</summary>
    private static Tensor Each(Text[] texts, Tensor like, Func<Text, double> number) =>
        texts.Length == 1 ? tensor(number(texts[0])) : Upload(tensor([.. texts.Select(number)], [texts.Length, 1]), like);

    /// <summary>Brings numbers to the logits without waiting for the work that their device still has.</summary>
    private static Tensor Upload(Tensor numbers, Tensor like) => like.device_type == DeviceType.CPU ? numbers : numbers.to(like.device, non_blocking: true);

    private static SampledToken[] Unpack(ReadOnlySpan<double> packed, Text[] texts, int shown)
    {
        SampledToken[] tokens = new SampledToken[texts.Length];
        for (int i = 0, width = packed.Length / texts.Length; i < texts.Length; i++)
        {
            ReadOnlySpan<double> row = packed.Slice(i * width, width);
            TokenProbability[] alternatives = shown == 0 ? [] : new TokenProbability[Math.Min(Math.Min(texts[i].Alternatives, shown), (int)row[2] + 1)];
            for (int j = 0; j < alternatives.Length; j++) alternatives[j] = new((int)row[3 + j], (float)row[3 + shown + j]);
            tokens[i] = new((int)row[0], (float)row[1]) { Alternatives = alternatives };
        }
        return tokens;
    }

    /// <summary>Logits without infinite ones above, whose differences were not numbers. An infinite logit is certain, and so is the largest number.</summary>
    private static Tensor Finite(Tensor logits_BV)
    {
        if (logits_BV.isnan().any().item<bool>())
            throw new InvalidDataException("the model's output is not a number: its training diverged or its file is damaged; take an earlier checkpoint.");
        if (logits_BV.amax([1]).isneginf().any().item<bool>())
            throw new InvalidDataException("no token is left to choose from: every logit is minus infinity.");
        return logits_BV.clamp_max_(Scalars.Of(float.MaxValue));
    }

    /// <summary>The next number of SplitMix64, as a fraction from 0 to below 1. Nothing is drawn at temperature 0.</summary>
    private double NextDraw()
    {
        if (_options.Temperature == 0) return Greedy;
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return ((z ^ (z >> 31)) >> 11) * (1.0 / (1UL << 53));
    }
}
