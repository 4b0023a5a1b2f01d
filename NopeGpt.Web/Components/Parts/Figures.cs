using System.Globalization;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Components.Parts;

/// <summary>Numbers as people read them: few digits, with their unit.</summary>
internal static class Figures
{
    private static readonly CultureInfo Culture = CultureInfo.InvariantCulture;

    /// <summary>Three digits and a unit of thousands: 1.24k, 3.5M.</summary>
    public static string Count(double value)
    {
        if (!double.IsFinite(value)) return Odd(value);
        double size = Math.Abs(value);
        return size switch
        {
            >= 999.5e9 => Three(value / 1e12) + "T",
            >= 999.5e6 => Three(value / 1e9) + "B",
            >= 999.5e3 => Three(value / 1e6) + "M",
            >= 999.5 => Three(value / 1e3) + "k",
            _ => size == Math.Floor(size) ? value.ToString("0", Culture) : Three(value),
        };
    }

    /// <summary>A loss: 3.021.</summary>
    public static string Loss(double value) => double.IsFinite(value) ? value.ToString(Math.Abs(value) < 0.1 ? "0.0000" : "0.000", Culture) : Odd(value);

    /// <summary>Any metric, by its name.</summary>
    public static string Metric(string name, double value) =>
        name.EndsWith("loss", StringComparison.Ordinal) ? Loss(value)
        : name.EndsWith("bytes", StringComparison.Ordinal) ? Bytes(value)
        : name.EndsWith("tokens_per_second", StringComparison.Ordinal) ? Count(value) + " tok/s"
        : name.EndsWith("_ms", StringComparison.Ordinal) ? Small(value) + " ms"
        : Small(value);

    /// <summary>A number of any size with three significant digits: 0.00187, 2.0e-5.</summary>
    public static string Small(double value) =>
        !double.IsFinite(value) ? Odd(value)
        : value == 0 ? "0"
        : Math.Abs(value) < 1e-4 ? value.ToString("0.0#e-0", Culture)
        : Math.Abs(value) < 1 ? value.ToString("0." + new string('#', 2 - (int)Math.Floor(Math.Log10(Math.Abs(value)))), Culture)
        : Count(value);

    public static string Bytes(double value)
    {
        string[] units = ["bytes", "KB", "MB", "GB", "TB"];
        int unit = 0;
        while (value >= 999.5 && unit < units.Length - 1) { value /= 1000; unit++; }
        return (unit == 0 ? value.ToString("0", Culture) : Three(value)) + " " + units[unit];
    }

    public static string Percent(double fraction) => Math.Floor(Math.Clamp(fraction, 0, 1) * 100).ToString("0", Culture) + " %";

    /// <summary>48 s, 4 min 05 s, 2 h 10 min, 3 d 4 h.</summary>
    public static string Duration(TimeSpan time)
    {
        if (time < TimeSpan.Zero) time = TimeSpan.Zero;
        return time switch
        {
            { TotalSeconds: < 60 } => $"{(int)time.TotalSeconds} s",
            { TotalHours: < 1 } => $"{time.Minutes} min {time.Seconds:00} s",
            { TotalDays: < 1 } => $"{time.Hours} h {time.Minutes:00} min",
            _ => $"{(int)time.TotalDays} d {time.Hours} h",
        };
    }

    /// <summary>Time to the end, coarse, because it is an estimate: 40 s left, 12 min left.</summary>
    public static string Left(double seconds) => seconds switch
    {
        < 0 or double.NaN or > 1e9 => "time unknown",
        < 10 => "a few seconds left",
        < 90 => $"{Math.Ceiling(seconds / 5) * 5:0} s left",
        < 5400 => $"{Math.Round(seconds / 60):0} min left",
        < 86400 => $"{Math.Floor(seconds / 3600):0} h {seconds % 3600 / 60:00} min left",
        _ => $"{seconds / 86400:0.#} days left",
    };

    /// <summary>What a trainer does now: "reading the text · 12.3 MB/s · 40 s left".</summary>
    public static string Doing(RunSnapshot snapshot)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        string?[] parts = [snapshot.Stage, snapshot.BytesPerSecond is { } speed ? Bytes(speed) + "/s" : null, snapshot.EtaSeconds is { } left ? Left(left) : null];
        return string.Join(" · ", parts.Where(part => part is not null));
    }

    /// <summary>All digits, with commas between the thousands.</summary>
    public static string Whole(long value) => value.ToString("N0", Culture);

    /// <summary>A part of a whole: 0 %, 0.04 %, 12.3 %.</summary>
    public static string Share(double part) => part <= 0 ? "0 %" : part >= 1 ? "100 %" : part < 0.00005 ? "under 0.01 %" : (part * 100).ToString(part < 0.01 ? "0.##" : "0.#", Culture) + " %";

    /// <summary>5 min ago; the date when it is long past.</summary>
    public static string Ago(DateTimeOffset then, DateTimeOffset now)
    {
        TimeSpan past = now - then;
        return past switch
        {
            { TotalSeconds: < 60 } => "just now",
            { TotalHours: < 1 } => $"{(int)past.TotalMinutes} min ago",
            { TotalDays: < 1 } => $"{(int)past.TotalHours} h ago",
            { TotalDays: < 7 } => $"{(int)past.TotalDays} d ago",
            _ => then.ToString("yyyy-MM-dd", Culture),
        };
    }

    private static string Three(double value) => value.ToString(Math.Abs(value) switch { >= 99.95 => "0", >= 9.995 => "0.0", _ => "0.00" }, Culture);

    private static string Odd(double value) => double.IsNaN(value) ? "NaN" : value > 0 ? "∞" : "-∞";
}
