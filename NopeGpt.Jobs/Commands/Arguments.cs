using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Configuration;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>The values given to one verb. Reading never throws for a bad value: it adds a sentence to <see cref="Problems"/> and returns something harmless.</summary>
internal sealed partial class Arguments(ParseResult parsed, IConfiguration configuration)
{
    /// <summary>Everything wrong so far, each one sentence for the person at the keyboard.</summary>
    public List<string> Problems { get; } = [];

    /// <summary>The settings of appsettings.json and the environment.</summary>
    public IConfiguration Configuration => configuration;

    /// <summary>A folder with another libtorch (Torch:LibraryPath), or null.</summary>
    public string? TorchLibrary => configuration["Torch:LibraryPath"] is { Length: > 0 } path ? path : null;

    /// <summary>A sweep of more runs must be confirmed.</summary>
    /// <exception cref="UserException">The setting is no number.</exception>
    public int SweepCap => Queue.SweepPlan.Cap(configuration);

    public bool Flag(Option<bool> option) => parsed.GetValue(option);

    /// <summary>Whether it is given, with a value or without.</summary>
    public bool Has(Option option) => parsed.GetResult(option) is { Implicit: false };

    /// <summary>The value or the option's default; null where neither is there or the value is missing (which the parser reports).</summary>
    public string? Text(Option<string?> option) =>
        parsed.GetResult(option) is { } result && !result.Errors.Any() ? result.GetValueOrDefault<string?>() : null;

    /// <summary>The value; null where it is missing, or only an unknown option can be meant (both of which the frame reports).</summary>
    public string? Text(Argument<string?> argument) =>
        parsed.GetResult(argument) is { } result && !result.Errors.Any() && result.GetValueOrDefault<string?>() is { } word && !LooksLikeOption(word) ? word : null;

    /// <summary>The values of an option that takes several, without unknown options among them and what these would take (which the frame reports).</summary>
    public IReadOnlyList<string> Texts(Option<string[]> option) => Texts(parsed.GetResult(option));

    /// <summary>As for an option.</summary>
    public IReadOnlyList<string> Texts(Argument<string[]> argument) => Texts(parsed.GetResult(argument));

    /// <summary>A path that begins with a hyphen can be written ./-path.</summary>
    public static bool LooksLikeOption(string word) => word.Length > 1 && word[0] == '-';

    /// <returns>The number, or null where the option is absent or its value is wrong.</returns>
    public int? Whole(Option<string?> option, int minimum, int maximum)
    {
        if (Text(option) is not { } text) return null;
        if (int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) && value >= minimum && value <= maximum) return value;
        Add(option.Name, text, string.Create(CultureInfo.InvariantCulture, $"give a whole number from {minimum} to {maximum}"));
        return null;
    }

    /// <returns>The number, or null where the option is absent or its value is wrong.</returns>
    public double? Number(Option<string?> option, double minimum, double maximum)
    {
        if (Text(option) is not { } text) return null;
        if (Settings.TryNumber(text, out double value) && value >= minimum && value <= maximum) return value;
        Add(option.Name, text, string.Create(CultureInfo.InvariantCulture, $"must be a number from {minimum} to {maximum}"));
        return null;
    }

    /// <summary>A number whose range is checked by what it is for.</summary>
    /// <param name="range">That range, for the message about what is no number.</param>
    /// <returns>The number, or null where the option is absent or its value is no number.</returns>
    public double? Number(Option<string?> option, string range)
    {
        if (Text(option) is not { } text) return null;
        if (Settings.TryNumber(text, out double value)) return value;
        Add(option.Name, text, $"must be a number {range}");
        return null;
    }

    public ulong? Seed(Option<string?> option)
    {
        if (Text(option) is not { } text) return null;
        if (ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong value)) return value;
        Add(option.Name, text, string.Create(CultureInfo.InvariantCulture, $"give a whole number from 0 to {ulong.MaxValue}"));
        return null;
    }

    /// <returns>auto, cpu, cuda or cuda:N.</returns>
    public string Device(Option<string?> option)
    {
        string text = Text(option) ?? "auto";
        if (DevicePattern().IsMatch(text)) return text;
        Add(option.Name, text, "give auto, cpu, cuda or cuda:N");
        return "cpu";
    }

    /// <summary>The store that --root names, else the other folder, else the one of the configuration.</summary>
    /// <exception cref="UserException">It cannot be written.</exception>
    public Store Store(Option<string?> root, string? otherwise = null) => Jobs.Store.Open(configuration, Text(root) is { Length: > 0 } given ? given : otherwise);

    /// <summary>Where the files of published tokenizers may lie: the given place, and the store's, which is not made for this.</summary>
    public IReadOnlyList<string> TokenizerPlaces(Option<string?> given, Option<string?> root)
    {
        IReadOnlyList<string> places = Jobs.Store.TokenizerPlacesOf(Text(root) is { Length: > 0 } path ? path : null, configuration);
        if (Text(given) is not { } place) return places;
        if (!File.Exists(place) && !Directory.Exists(place)) Add(given.Name, place, "there is no such file or folder");
        return [place, .. places];
    }

    /// <summary>Where the file of a published encoding is kept once it is fetched: the store's cache, which is not made for this.</summary>
    /// <exception cref="UserException">The setting of its address is no address.</exception>
    public EncodingDownload? TokenizerDownload(Option<string?> root) => Jobs.Store.TokenizerDownloadOf(Text(root) is { Length: > 0 } path ? path : null, configuration);

    public void Add(string option, string value, string message) => Add(new Problem(option, value, message));

    public void Add(Problem problem) => Problems.Add($"{problem.Field} = {(problem.Value.Length == 0 ? "(empty)" : problem.Value)}: {problem.Message}");

    private static List<string> Texts(SymbolResult? result)
    {
        List<string> values = [];
        bool afterUnknownOption = false;
        foreach (Token token in result?.Tokens ?? [])
        {
            if (!afterUnknownOption && !LooksLikeOption(token.Value)) values.Add(token.Value);
            afterUnknownOption = LooksLikeOption(token.Value) && !token.Value.Contains('=');
        }
        return values;
    }

    [GeneratedRegex(@"\A(auto|cpu|cuda(:[0-9]{1,3})?)\z")]
    private static partial Regex DevicePattern();
}
