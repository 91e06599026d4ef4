// The official Node client against a live gateway. Run by tests/api/test_client_node.py, which sets the environment.
import './chat.mjs';
import './tool.mjs';
import './response.mjs';
import './other.mjs';
import './failure.mjs';
import './departure.mjs';
