namespace NopeGpt.Model.Native;

/// <summary>libtorch cannot be loaded on this machine. The message is one sentence that says what is missing and what to do about it.</summary>
public sealed class TorchUnavailableException : Exception
{
    public TorchUnavailableException(string message) : base(message) { }

    public TorchUnavailableException(string message, Exception inner) : base(message, inner) { }

    public TorchUnavailableException() : base("libtorch cannot be loaded.") { }
}
