using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>A chosen token.</summary>
/// <param name="Probability">Its probability among the tokens that were kept, from 0 to 1.</param>
public readonly record struct SampledToken(int Id, float Probability);

/// <summary>Chooses tokens of one text, in this order: repeat penalty, top-k, temperature, softmax, top-p, renormalise, draw.
/// The draws come from a generator of its own (SplitMix64, Steele et al. 2014) over the tokens sorted by probability,
/// so that one seed gives one text on every machine whose logits agree.</summary>
public sealed class Sampler
{
    private readonly SamplingOptions _options;
    private ulong _state;
    private float[] _logits = [];
    private int[] _ids = [];

    /// <exception cref="ArgumentException">The options have problems.</exception>
    public Sampler(SamplingOptions options, ulong seed)
    {
        string[] problems = [.. options.Problems().Select(p => p.ToString())];
        if (problems.Length > 0) throw new ArgumentException(string.Join("; ", problems), nameof(options));
        _options = options;
        _state = seed;
    }

    /// <summary>Chooses the next token.</summary>
    /// <param name="logits_V">One float32 logit for each token of the vocabulary, on any device.</param>
    /// <param name="generated">The tokens generated so far, without the prompt.</param>
    /// <returns>The token with its probability among the kept ones. At temperature 0 it is the likeliest, with its probability at temperature 1.</returns>
    /// <exception cref="InvalidDataException">A logit is not a number: the model has diverged or its file is damaged.</exception>
    public SampledToken Next(Tensor logits_V, IReadOnlyList<int> generated)
    {
        if (_options.Temperature == 0) return Likeliest(logits_V, generated);
        (int[] kept, double[] probabilities, double sum) = Keep(logits_V, generated);
        int drawn = Draw(probabilities, sum);
        return new(kept[drawn], (float)(probabilities[drawn] / sum));
    }

    /// <summary>The likeliest of the tokens that <see cref="Next"/> would draw from, without drawing.</summary>
    public SampledToken Likeliest(Tensor logits_V, IReadOnlyList<int> generated)
    {
        (int[] kept, double[] probabilities, double sum) = Keep(logits_V, generated);
        return new(kept[0], (float)(probabilities[0] / sum));
    }

    /// <summary>The tokens to draw from, likeliest first, with their probabilities and the sum of these.</summary>
    private (int[] Ids, double[] Probabilities, double Sum) Keep(Tensor logits_V, IReadOnlyList<int> generated)
    {
        Copy(logits_V);
        Penalise(generated);
        int[] best = Best(_options.TopK > 0 ? Math.Min(_options.TopK, _logits.Length) : _logits.Length);
        double[] probabilities = Softmax(best, _options.Temperature == 0 ? 1 : _options.Temperature);
        int count = Nucleus(probabilities, out double sum);
        return (best[..count], probabilities[..count], sum);
    }

    private void Copy(Tensor logits_V)
    {
        if (logits_V.dim() != 1) throw new ArgumentException("the logits of one position are wanted, of shape [vocabulary]", nameof(logits_V));
        int size = (int)logits_V.shape[0];
        if (_logits.Length != size) (_logits, _ids) = (new float[size], new int[size]);
        using (NewDisposeScope())
        using (no_grad())
            logits_V.to(ScalarType.Float32).cpu().contiguous().data<float>().CopyTo(_logits.AsSpan());
        if (Array.Exists(_logits, float.IsNaN))
            throw new InvalidDataException("the model's output is not a number: its training diverged or its file is damaged; take an earlier checkpoint.");
    }

    private void Penalise(IReadOnlyList<int> generated)
    {
        if (_options.RepeatPenalty == 0) return;
        for (int i = Math.Max(0, generated.Count - _options.RepeatWindow); i < generated.Count; i++)
        {
            ref float logit = ref _logits[generated[i]];
            logit -= (float)_options.RepeatPenalty * Math.Abs(logit);
        }
    }

    /// <summary>The ids of the highest logits, best first, equal ones by id.</summary>
    private int[] Best(int count)
    {
        float[] logits = _logits;
        for (int i = 0; i < _ids.Length; i++) _ids[i] = i;
        if (count < _ids.Length) SelectFirst(_ids, count, Compare);
        int[] best = _ids[..count];
        Array.Sort(best, Compare);
        return best;

        int Compare(int a, int b) => logits[a] != logits[b] ? logits[b].CompareTo(logits[a]) : a.CompareTo(b);
    }

    /// <summary>Moves the smallest <paramref name="count"/> items to the front (Hoare's quickselect).</summary>
    private static void SelectFirst(int[] items, int count, Comparison<int> compare)
    {
        int low = 0, high = items.Length - 1;
        while (low < high)
        {
            int pivot = items[low + ((high - low) / 2)];
            int i = low, j = high;
            while (i <= j)
            {
                while (compare(items[i], pivot) < 0) i++;
                while (compare(items[j], pivot) > 0) j--;
                if (i > j) break;
                (items[i], items[j]) = (items[j], items[i]);
                i++;
                j--;
            }
            if (count - 1 <= j) high = j;
            else if (count - 1 >= i) low = i;
            else return;
        }
    }

    private double[] Softmax(ReadOnlySpan<int> ids, double temperature)
    {
        double[] probabilities = new double[ids.Length];
        double top = _logits[ids[0]], sum = 0;
        for (int i = 0; i < ids.Length; i++)
        {
            // An infinite best logit is certain; the difference of two infinities would be no number.
            double difference = double.IsPositiveInfinity(top) ? (double.IsPositiveInfinity(_logits[ids[i]]) ? 0 : double.NegativeInfinity) : _logits[ids[i]] - top;
            sum += probabilities[i] = Math.Exp(difference / temperature);
        }
        for (int i = 0; i < probabilities.Length; i++) probabilities[i] /= sum;
        return probabilities;
    }

    private int Nucleus(double[] probabilities, out double sum)
    {
        sum = 0;
        for (int i = 0; i < probabilities.Length; i++)
        {
            sum += probabilities[i];
            if (sum >= _options.TopP && _options.TopP < 1) return i + 1;
        }
        return probabilities.Length;
    }

    private int Draw(ReadOnlySpan<double> probabilities, double sum)
    {
        double left = Uniform() * sum;
        for (int i = 0; i < probabilities.Length; i++)
        {
            left -= probabilities[i];
            if (left < 0) return i;
        }
        return probabilities.LastIndexOfAnyExcept(0.0);
    }

    /// <summary>The next number of SplitMix64, as a fraction from 0 to below 1.</summary>
    private double Uniform()
    {
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return ((z ^ (z >> 31)) >> 11) * (1.0 / (1UL << 53));
    }
}
