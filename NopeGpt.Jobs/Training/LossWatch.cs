using System.Text.Json.Nodes;

namespace NopeGpt.Jobs.Training;

/// <summary>Tells a loss that lies far above the recent ones. The measure is robust, so that one such loss does not hide the next: the median of the last
/// steps, and as spread 1.4826 times their median absolute deviation, which is the standard deviation where losses scatter normally. A pure function of
/// the losses; its state is in the checkpoint.</summary>
/// <param name="spreads">How many spreads above the median are unusual; 0 for none.</param>
/// <param name="warmupSteps">The first steps, whose losses fall too fast to be measured by each other.</param>
internal sealed class LossWatch(double spreads, long warmupSteps)
{
    /// <summary>Steps that are looked back on, and how many of them there must be.</summary>
    internal const int Window = 64, Least = 32;

    private const double NormalSpread = 1.4826;

    /// <summary>Least spread as a share of the median: where losses hardly scatter, a small rise is nothing.</summary>
    private const double LeastSpread = 0.005;

    private readonly Queue<double> _recent = [];
    private bool _alarmed;

    /// <summary>Takes a step's loss.</summary>
    /// <param name="step">Its number, from 1.</param>
    /// <returns>The median and spread that it lies too far above; null where it does not, and where the one before did already.</returns>
    public (double Median, double Spread)? Take(long step, double loss)
    {
        if (spreads == 0 || step <= warmupSteps) return null;
        (double Median, double Spread)? unusual = null;
        if (_recent.Count >= Least)
        {
            double median = Median(_recent), spread = Math.Max(NormalSpread * Median(_recent.Select(l => Math.Abs(l - median))), LeastSpread * Math.Abs(median));
            bool far = loss > median + (spreads * spread);
            if (far && !_alarmed) unusual = (median, spread);
            _alarmed = far;
        }
        _recent.Enqueue(loss);
        if (_recent.Count > Window) _recent.Dequeue();
        return unusual;
    }

    public JsonObject ToJson() => new() { ["recent"] = new JsonArray([.. _recent.Select(l => (JsonNode)JsonValue.Create(l))]), ["alarmed"] = _alarmed };

    /// <param name="saved">Null for a state that has none.</param>
    public void Restore(JsonObject? saved)
    {
        _recent.Clear();
        foreach (JsonNode? loss in saved?["recent"] as JsonArray ?? []) _recent.Enqueue(loss!.GetValue<double>());
        _alarmed = saved?["alarmed"]?.GetValue<bool>() ?? false;
    }

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }
}
