namespace NopeGpt.Data.Documents.Hub;

/// <summary>Where the Hub is and how patiently it is asked.</summary>
public sealed record HubOptions
{
    /// <summary>The Hub's own address, unless HF_ENDPOINT names a mirror.</summary>
    public static readonly Uri DefaultEndpoint = new("https://huggingface.co");

    public Uri Endpoint { get; init; } = DefaultEndpoint;

    /// <summary>Sent to the endpoint only, never to the servers that it sends downloads to. Null for none.</summary>
    public string? Token { get; init; }

    /// <summary>Where downloads are kept. Several processes may share the folder.</summary>
    public required string CacheFolder { get; init; }

    /// <summary>How often something is tried that fails in a way that may pass. Tries that bring more of a file than those before do not count.</summary>
    public int Attempts { get; init; } = 8;

    /// <summary>The wait after the first failure; it doubles with each further one.</summary>
    public TimeSpan FirstWait { get; init; } = TimeSpan.FromSeconds(0.5);

    /// <summary>The longest wait between two attempts; when the server asks for a longer one, that is an error that says so.</summary>
    public TimeSpan LongestWait { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>How long the server may take to answer, and to send the next bytes.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(60);

    public TimeProvider Time { get; init; } = TimeProvider.System;

    /// <summary>Options with the address in HF_ENDPOINT and the token in HF_TOKEN, where these are set.</summary>
    /// <exception cref="FormatException">HF_ENDPOINT is no http address.</exception>
    public static HubOptions FromEnvironment(string cacheFolder)
    {
        string? endpoint = Environment.GetEnvironmentVariable("HF_ENDPOINT"), token = Environment.GetEnvironmentVariable("HF_TOKEN");
        return new()
        {
            CacheFolder = cacheFolder,
            Endpoint = string.IsNullOrWhiteSpace(endpoint) ? DefaultEndpoint : ParseEndpoint(endpoint.Trim()),
            Token = string.IsNullOrWhiteSpace(token) ? null : token.Trim(),
        };
    }

    /// <summary>An address from a setting.</summary>
    /// <exception cref="FormatException">It is no http address.</exception>
    public static Uri ParseEndpoint(string text) =>
        Uri.TryCreate(text, UriKind.Absolute, out Uri? address) && address.Scheme is "http" or "https" ? address
        : throw new FormatException($"The Hub's address \"{text}\" is not an http or https address, such as {DefaultEndpoint}; change HF_ENDPOINT or the setting.");
}

/// <summary>The Hub refused or could not be reached. The message is one sentence that says what to do.</summary>
public sealed class HubException : Exception
{
    public HubException()
    {
    }

    public HubException(string message) : base(message)
    {
    }

    public HubException(string message, Exception? inner) : base(message, inner)
    {
    }
}

/// <summary>A failure that may pass.</summary>
internal sealed class PassingFailure(string message, Exception? inner = null, TimeSpan? wait = null, bool progressed = false, bool badRange = false, bool unreached = false) : Exception(message, inner)
{
    /// <summary>What the server asks to wait for; null when it does not say.</summary>
    public TimeSpan? Wait => wait;

    /// <summary>True when the server does not have the bytes that were asked for.</summary>
    public bool BadRange => badRange;

    /// <summary>True when there was no answer at all.</summary>
    public bool Unreached => unreached;

    /// <summary>True when the attempt brought more than all before it.</summary>
    public bool Progressed => progressed;
}
