using System.Globalization;

namespace NopeGpt.Jobs.Commands;

/// <summary>Shows a run's events on a terminal: one line that is written over, or a line now and then where the output is a file or a pipe.</summary>
internal sealed class TerminalProgress(TextWriter output)
{
    private const int BarWidth = 24;
    private static readonly TimeSpan OnTerminal = TimeSpan.FromMilliseconds(200), ElseWhere = TimeSpan.FromSeconds(10);
    private readonly bool terminal = !Console.IsErrorRedirected;
    private readonly Lock gate = new();
    private long last;
    private bool open;
    private string heldOut = "";

    public void Show(TrainingEvent happened)
    {
        lock (gate) Take(happened);
    }

    /// <summary>A line of the log, above the one that is written over. It may come from any thread.</summary>
    public void Log(string line)
    {
        lock (gate)
        {
            EndLine();
            output.WriteLine(line);
        }
    }

    private void Take(TrainingEvent happened)
    {
        if (happened is MetricsEvent evaluated && evaluated.Values.TryGetValue("eval/loss", out double measured)) heldOut = string.Create(CultureInfo.InvariantCulture, $" (held out {measured:0.000})");
        switch (happened)
        {
            case MetricsEvent { EtaSeconds: { } eta } m when m.MaxSteps > 0:
                string rate = m.Values.TryGetValue("train/tokens_per_second", out double tokens) ? $"  {tokens:N0} tokens/s" : "";
                string loss = m.Values.TryGetValue("train/loss", out double value) ? $"  loss {value:0.000}{heldOut}" : "";
                Line((double)m.Step / m.MaxSteps, $"step {m.Step}/{m.MaxSteps}{loss}{rate}  {Duration(eta)} left", m.Step == m.MaxSteps);
                break;
            case ProgressEvent p:
                string speed = p.BytesPerSecond is { } bytes ? $"  {bytes / 1e6:0.0} MB/s" : "", left = p.EtaSeconds is { } end ? $"  {Duration(end)} left" : "";
                Line(p.Fraction, p.Stage + speed + left, p.Fraction >= 1);
                break;
            case SampleEvent s: EndLine(); output.WriteLine($"  {s.Prompt}{s.Text}".ReplaceLineEndings(" ")); break;
            case WarningEvent w: EndLine(); output.WriteLine("warning: " + w.Message); break;
            case EndedEvent: EndLine(); break;
        }
    }

    /// <summary>A time in the largest unit that says enough: 45 s, 3 min, 2.1 h.</summary>
    public static string Duration(double seconds) => seconds switch
    {
        < 90 => seconds.ToString("0", CultureInfo.InvariantCulture) + " s",
        < 5400 => (seconds / 60).ToString("0", CultureInfo.InvariantCulture) + " min",
        _ => (seconds / 3600).ToString("0.0", CultureInfo.InvariantCulture) + " h",
    };

    private void Line(double fraction, string text, bool always)
    {
        long now = TimeProvider.System.GetTimestamp();
        if (!always && last != 0 && TimeProvider.System.GetElapsedTime(last, now) < (terminal ? OnTerminal : ElseWhere)) return;
        last = now;
        if (!terminal)
        {
            output.WriteLine($"{fraction,4:P0} {text}");
            return;
        }
        int full = (int)(Math.Clamp(fraction, 0, 1) * BarWidth);
        // \e[K clears what a longer line before left standing.
        output.Write($"\r{new string('█', full)}{new string('░', BarWidth - full)} {fraction,4:P0}  {text}\e[K");
        open = true;
    }

    /// <summary>What is written next begins on a line of its own.</summary>
    public void End()
    {
        lock (gate) EndLine();
    }

    private void EndLine()
    {
        if (open) output.WriteLine();
        open = false;
    }
}
